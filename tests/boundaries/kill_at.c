/* Runs a program under ptrace(2) and kills it (SIGKILL) at its n-th boundary, or within one call.
 * Model: a boundary is the entry or the return of an exported function of libcob.so (breakpoints,
 * set when the program executes its int3), or the entry or exit of a system call. A boundary like
 * one of the four before it, and sched_yield(2), do not count: a wait that polls would make the
 * number depend on time. Forked children are traced and counted too; only who stands at the
 * boundary is killed, the others go on. kill_at calls N                 FUNCTIONS PROGRAM
 * ARGUMENTS...   N = 0: never kill_at steps FUNCTION TURN K   FUNCTIONS PROGRAM ARGUMENTS... after
 * K instructions of its TURN-th call FUNCTIONS: lines of "offset name". The last line of output:
 * "killed WHERE", or "ended STATUS COUNT". */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { max_breakpoints = 4096, max_tracees = 8, seconds = 30 };

struct breakpoint {
  uint64_t address;
  uint8_t original;
  int is_return;
  char name[48];
};
static struct breakpoint breakpoints[max_breakpoints];
static int breakpoint_count;
static struct {
  pid_t pid;
  int in_call; /* between a system call's entry and its exit */
} tracees[max_tracees];
static int tracee_count;

static const char* step_function; /* NULL: boundaries are counted */
static long step_turn, step_instructions, turns;
static long kill_at, boundaries;
static char killed_at[96];
static uint64_t recent[4];
static pid_t first;

static void give_up(const char* what) {
  fprintf(stderr, "kill_at: %s: %s\n", what, strerror(errno));
  exit(2);
}

static void out_of_time(int signal) {
  (void)signal;
  const char text[] = "kill_at: out of time\n";
  if (write(2, text, sizeof text - 1) < 0) _exit(3);
  _exit(3); /* PTRACE_O_EXITKILL ends the program */
}

static uint8_t swap_byte(pid_t pid, uint64_t address, uint8_t byte) {
  errno = 0;
  const long word = ptrace(PTRACE_PEEKTEXT, pid, address, 0);
  if (errno != 0) give_up("peek");
  if (ptrace(PTRACE_POKETEXT, pid, address, (word & ~0xffL) | byte) != 0) give_up("poke");
  return (uint8_t)word;
}

static struct breakpoint* find_breakpoint(uint64_t address) {
  for (int i = 0; i < breakpoint_count; ++i)
    if (breakpoints[i].address == address) return &breakpoints[i];
  return NULL;
}

static void set_breakpoint(pid_t pid, uint64_t address, const char* name, int is_return) {
  const uint8_t was = swap_byte(pid, address, 0xcc);
  if (find_breakpoint(address) != NULL) return;
  if (breakpoint_count == max_breakpoints) give_up("too many breakpoints");
  struct breakpoint* b = &breakpoints[breakpoint_count++];
  b->address = address;
  b->original = was;
  b->is_return = is_return;
  snprintf(b->name, sizeof b->name, "%s", name);
}

static void clear_breakpoints(pid_t pid) {
  for (int i = 0; i < breakpoint_count; ++i) {
    errno = 0;
    const long word = ptrace(PTRACE_PEEKTEXT, pid, breakpoints[i].address, 0);
    if (errno == 0 && (uint8_t)word == 0xcc)
      swap_byte(pid, breakpoints[i].address, breakpoints[i].original);
  }
}

/* Where libcob.so begins in the program's memory; maps(5). */
static uint64_t library_base(pid_t pid) {
  char path[64];
  char line[512];
  snprintf(path, sizeof path, "/proc/%d/maps", pid);
  FILE* maps = fopen(path, "r");
  if (maps == NULL) give_up(path);
  uint64_t base = 0;
  while (base == 0 && fgets(line, sizeof line, maps) != NULL)
    if (strstr(line, "/libcob.so") != NULL) base = strtoull(line, NULL, 16);
  fclose(maps);
  if (base == 0) give_up("libcob.so is not mapped");
  return base;
}

static void set_all_breakpoints(pid_t pid, const char* functions) {
  const uint64_t base = library_base(pid);
  FILE* list = fopen(functions, "r");
  if (list == NULL) give_up(functions);
  unsigned long offset;
  char name[48];
  while (fscanf(list, "%lx %47s", &offset, name) == 2)
    if (step_function == NULL || strcmp(step_function, name) == 0)
      set_breakpoint(pid, base + offset, name, 0);
  fclose(list);
}

static void end_tracee(pid_t pid) {
  for (int i = 0; i < tracee_count; ++i)
    if (tracees[i].pid == pid) tracees[i] = tracees[--tracee_count];
}

static void kill_now(pid_t pid, const char* where) {
  snprintf(killed_at, sizeof killed_at, "%s", where);
  kill(pid, SIGKILL);
}

/* True: this was the one. */
static int count_boundary(pid_t pid, uint64_t key, const char* what, const char* name) {
  if (step_function != NULL || killed_at[0] != 0) return 0;
  for (int i = 0; i < 4; ++i)
    if (recent[i] == key) return 0;
  recent[boundaries % 4] = key;
  if (++boundaries != kill_at) return 0;
  char where[96];
  snprintf(where, sizeof where, "%s %s%s", what, name, pid == first ? "" : " in the child");
  kill_now(pid, where);
  return 1;
}

/* Executes one instruction. False: the program ended, or is about to. */
static int step(pid_t pid) {
  for (;;) {
    int status;
    if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) != 0) return 0;
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status)) {
      end_tracee(pid);
      return 0;
    }
    if (WSTOPSIG(status) == SIGTRAP) return 1; /* any other signal (SIGCHLD) is none of life's */
  }
}

/* Steps through the call whose entry was just reached. */
static int step_through(pid_t pid, uint64_t return_address, uint64_t stack) {
  clear_breakpoints(pid);
  breakpoint_count = 0;
  for (long done = 0; done < step_instructions; ++done) {
    struct user_regs_struct r;
    if (!step(pid)) return 0;
    if (ptrace(PTRACE_GETREGS, pid, 0, &r) != 0) return 0;
    if (r.rip == return_address && r.rsp > stack) {
      boundaries = done + 1;
      return 1;
    }
  }
  char where[96];
  snprintf(where, sizeof where, "%s after %ld instructions", step_function, step_instructions);
  kill_now(pid, where);
  return 0;
}

/* A breakpoint of ours: count it, then go over it. False: the program was killed or has ended. */
static int at_breakpoint(pid_t pid, struct user_regs_struct* r, struct breakpoint* b) {
  r->rip = b->address;
  if (ptrace(PTRACE_SETREGS, pid, 0, r) != 0) return 0;
  if (count_boundary(pid, b->address, b->is_return ? "return" : "entry", b->name)) return 0;
  uint64_t return_address = 0;
  if (!b->is_return) {
    errno = 0;
    return_address = (uint64_t)ptrace(PTRACE_PEEKDATA, pid, r->rsp, 0);
    if (errno != 0) give_up("peek at the stack");
    if (step_function != NULL && killed_at[0] == 0 && ++turns == step_turn)
      return step_through(pid, return_address, r->rsp);
  }
  const uint64_t address = b->address;
  const uint8_t original = b->original;
  if (return_address != 0 && step_function == NULL) set_breakpoint(pid, return_address, b->name, 1);
  swap_byte(pid, address, original);
  if (!step(pid)) return 0;
  swap_byte(pid, address, 0xcc);
  return 1;
}

static pid_t start(char** program) {
  const pid_t pid = fork();
  if (pid == 0) {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    execvp(program[0], program);
    give_up(program[0]);
  }
  int status;
  if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) give_up("start");
  const long options =
      PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXEC;
  if (ptrace(PTRACE_SETOPTIONS, pid, 0, options) != 0) give_up("PTRACE_SETOPTIONS");
  tracees[tracee_count++].pid = pid;
  ptrace(PTRACE_SYSCALL, pid, 0, 0);
  return pid;
}

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  int at = 1;
  if (strcmp(argv[at++], "steps") == 0) {
    step_function = argv[at++];
    step_turn = atol(argv[at++]);
    step_instructions = atol(argv[at++]);
  } else {
    kill_at = atol(argv[at++]);
  }
  const char* functions = argv[at++];
  signal(SIGALRM, out_of_time);
  alarm(seconds);
  first = start(argv + at);

  int first_status = 0;
  int execs = 0; /* `cob run`, then the program */
  while (tracee_count > 0) {
    int status;
    const pid_t pid = waitpid(-1, &status, __WALL);
    if (pid < 0) give_up("waitpid");
    if (!WIFSTOPPED(status)) {
      if (pid == first) first_status = status;
      end_tracee(pid);
      continue;
    }
    int t = 0;
    while (t < tracee_count && tracees[t].pid != pid) ++t;
    int deliver = WSTOPSIG(status);
    if (t == tracee_count) { /* a child's first stop */
      if (tracee_count == max_tracees) give_up("too many children");
      tracees[tracee_count].in_call = 0;
      tracees[tracee_count++].pid = pid;
      deliver = 0;
    } else if (deliver == (SIGTRAP | 0x80)) {
      struct user_regs_struct r;
      deliver = 0;
      tracees[t].in_call = !tracees[t].in_call;
      if (execs > 1 && ptrace(PTRACE_GETREGS, pid, 0, &r) == 0 && r.orig_rax != SYS_sched_yield) {
        char number[24];
        snprintf(number, sizeof number, "%ld", (long)r.orig_rax);
        const uint64_t key = 1 + 2 * r.orig_rax + (uint64_t)tracees[t].in_call;
        count_boundary(pid, key, tracees[t].in_call ? "before system call" : "after system call",
                       number);
      }
    } else if (status >> 16 == PTRACE_EVENT_EXEC) {
      deliver = 0;
      ++execs;
    } else if (status >> 16 != 0) {
      deliver = 0;
    } else if (deliver == SIGTRAP) {
      struct user_regs_struct r;
      deliver = 0;
      if (ptrace(PTRACE_GETREGS, pid, 0, &r) == 0) {
        struct breakpoint* b = find_breakpoint(r.rip - 1);
        if (b != NULL) {
          if (!at_breakpoint(pid, &r, b) && killed_at[0] == 0) continue;
        } else {
          set_all_breakpoints(pid, functions);
        }
      }
    }
    ptrace(PTRACE_SYSCALL, pid, 0, deliver);
  }
  if (killed_at[0] != 0) {
    printf("killed %s\n", killed_at);
  } else {
    printf("ended %d %ld\n", WIFEXITED(first_status) ? WEXITSTATUS(first_status) : -1, boundaries);
  }
  return 0;
}
