// `cob completion`: prints a completion script for bash or zsh, generated from the parser itself,
// so it is never out of date. One thread.
#include <algorithm>
#include <memory>

#include "cli/commands.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr const char* cob_names =
    "$(ls \"${XDG_RUNTIME_DIR:-/nonexistent}/cob\" \"/tmp/cob-$UID\" 2>/dev/null | grep -v : )";

std::string options_of(const CLI::App& command) {
  std::string words;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames())
      words += (words.empty() ? "--" : " --") + name;
  }
  return words;
}

std::string bash_script(const CLI::App& app) {
  std::string commands, cases;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    commands += (commands.empty() ? "" : " ") + command->get_name();
    const std::string further = command->get_name() == "completion" ? "bash zsh"
                                : command->get_name() == "ip"       ? "addr link neigh route"
                                : command->get_name() == "ss" ? "state exclude src dst sport dport"
                                : command->get_name() == "bench"
                                    ? fmt::format("{}", fmt::join(bench_words(), " "))
                                : command->get_name() == "island" ? "build add list remove"
                                : command->get_name() == "cable"  ? cob_names
                                                                  : "";
    cases += fmt::format("    {}) words=\"{} {}\" ;;\n", command->get_name(), options_of(*command),
                         further);
  }
  return fmt::format(R"(# bash completion for cob; printed by `cob completion bash`
_cob() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words i
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=( $(compgen -W "{0} --help --version" -- "$current") )
    return
  fi
  case $previous in
    --name|-n) COMPREPLY=( $(compgen -W "{1}" -- "$current") ); return ;;
    --output|-o) COMPREPLY=( $(compgen -f -- "$current") ); return ;;
    state|exclude) COMPREPLY=( $(compgen -W "all connected synchronized established syn-sent syn-recv fin-wait-1 fin-wait-2 time-wait closed close-wait last-ack listening closing" -- "$current") ); return ;;
    --only) COMPREPLY=( $(compgen -W "{3}" -- "$current") ); return ;;
    --share) COMPREPLY=( $(compgen -d -- "$current") ); return ;;
    --link) COMPREPLY=( $(compgen -W "window socket" -- "$current") ); return ;;
    --cable) COMPREPLY=( $(compgen -f -- "$current") ); return ;;
    --json) [[ ${{COMP_WORDS[1]}} == bench ]] && COMPREPLY=( $(compgen -f -- "$current") ) && return ;;
  esac
  if [[ ${{COMP_WORDS[1]}} == mount || ${{COMP_WORDS[1]}} == unmount ]] && [[ $current != -* ]]; then
    COMPREPLY=( $(compgen -d -- "$current") )
    return
  fi
  if [[ ${{COMP_WORDS[1]}} == run ]]; then
    # From the program's name on, complete as if it stood alone.
    for (( i = 2; i <= COMP_CWORD; i++ )); do
      case ${{COMP_WORDS[i]}} in
        -k|--kernel|-n|--name|--island|--from) (( i++ )) ;;
        --) (( i++ )); break ;;
        -*) ;;
        *) break ;;
      esac
    done
    if (( i <= COMP_CWORD )); then
      if declare -F _command_offset > /dev/null; then
        _command_offset $i
      elif (( i == COMP_CWORD )); then
        COMPREPLY=( $(compgen -c -- "$current") )
      else
        COMPREPLY=( $(compgen -f -- "$current") )
      fi
      return
    fi
  fi
  case ${{COMP_WORDS[1]}} in
{2}    *) words= ;;
  esac
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
}}
complete -F _cob cob
)",
                     commands, cob_names, cases, fmt::join(bench_cases(), " "));
}

std::string zsh_quoted(std::string text) {
  std::ranges::replace(text, '\n', ' ');
  for (std::size_t at = 0; (at = text.find_first_of("'[]:", at)) != std::string::npos; at += 2) {
    if (text[at] == '\'') {
      text.replace(at, 1, "’");
    } else {
      text.insert(at, "\\");
    }
  }
  return text;
}

std::string zsh_script(const CLI::App& app) {
  std::string commands, cases;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    commands +=
        fmt::format("    '{}:{}'\n", command->get_name(), zsh_quoted(command->get_description()));
    cases += fmt::format("    {}) _arguments", command->get_name());
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        const bool takes_value =
            option->get_items_expected_max() > 0 && option->get_type_size() > 0;
        const char* action = name == "name"     ? ":cob:_cob_names"
                             : name == "cable"  ? ":file:_files"
                             : name == "output" ? ":file:_files"
                             : name == "share"  ? ":directory:_files -/"
                             : name == "link"   ? ":kind:(window socket)"
                             : takes_value      ? ":value:"
                                                : "";
        const bool repeats = option->get_items_expected_max() > 1;
        cases += fmt::format(" \\\n      '{}--{}[{}]{}'", repeats ? "*" : "", name,
                             zsh_quoted(option->get_description()), action);
      }
    }
    if (command->get_name() == "run") cases += " \\\n      '*::program:_normal'";
    if (command->get_name() == "bench")
      cases += fmt::format(" \\\n      '*:benchmark:({})'", fmt::join(bench_words(), " "));
    if (command->get_name() == "cable") cases += " \\\n      '*:cob:_cob_names'";
    if (command->get_name() == "mount" || command->get_name() == "unmount")
      cases += " \\\n      '1:directory:_files -/'";
    if (command->get_name() == "completion") cases += " \\\n      '1:shell:(bash zsh)'";
    if (command->get_name() == "ip") cases += " \\\n      '1:object:(addr link neigh route)'";
    cases += " ;;\n";
  }
  return fmt::format(R"(#compdef cob
# zsh completion for cob; printed by `cob completion zsh`
_cob_names() {{
  compadd -- {1}
}}
_cob() {{
  local -a commands
  commands=(
{0}  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=${{words[2]}}
  shift words
  (( CURRENT-- ))
  case $command in
{2}  esac
}}
compdef _cob cob
)",
                     commands, cob_names, cases);
}

}  // namespace

void add_completion(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("completion", "Print a completion script for bash or zsh");
  auto shell = std::make_shared<std::string>();
  add_json_option(*command, context);
  command->add_option("shell", *shell, "bash or zsh")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh"}));
  add_examples(*command,
               "  source <(cob completion bash)\n"
               "  cob completion zsh > ~/.zfunc/_cob");
  command->callback([shell, &app, &context] {
    const std::string script = *shell == "bash" ? bash_script(app) : zsh_script(app);
    if (context.json) return print_json({{"shell", *shell}, {"script", script}});
    fmt::print("{}", script);
  });
}

}  // namespace cob::cli
