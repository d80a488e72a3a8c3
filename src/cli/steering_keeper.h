// SteeringKeeper: the one writer of a cob's steering tables: new connections from outside go to who
// listens on their port, the rest to all kernels that run. docs/network.md.
// Model: kernels say on which ports they listen; a change moves as few flow groups as an even
// spread allows, and is counted before it is made. A port for which no table is left is steered as
// all others, and kernels hand its connections on. The supervisor's thread.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "net/snap_bean/steering.h"
#include "net/snap_bean/table_changes.h"

namespace cob::cli {

// `groups` with as few changed as it takes to have each of `kernels`, and nobody else, as often as
// any other (or once more). REQUIRES: there is one.
net::GroupTable respread(net::GroupTable groups, const std::set<u16>& kernels);

class SteeringKeeper {
 public:
  static Result<SteeringKeeper> create(u16 kernels);

  const net::SteeringWriter& tables() const { return tables_; }
  FdRef changes() const { return changes_.fd(); }
  // Who gets what belongs to no connection: the first kernel that runs.
  KernelId first() const { return KernelId(up_.empty() ? u16{0} : *up_.begin()); }

  // Each changes the tables.
  void kernel_up(u16 kernel);
  void kernel_down(u16 kernel);
  // It gets no new connections while another kernel can have them: it is to be emptied, or it
  // hangs. False: nothing changed.
  bool drain(u16 kernel, bool on) { return shun(draining_, kernel, on); }
  bool hang(u16 kernel, bool on) { return shun(hung_, kernel, on); }
  // Flow groups of the port that are `from`'s go where it says, to kernels that listen there and do
  // not drain, each of which has at most twice an even share. Returns how many went.
  struct Move {
    u16 group = 0, to = 0;
  };
  std::size_t move_groups(u16 from, Port port, std::span<const Move> moves);
  // REQUIRES: `kernel` is up. False: that was known.
  bool listening(u16 kernel, Port port, bool listens);

 private:
  SteeringKeeper(net::SteeringWriter tables, net::TableChangesWriter changes)
      : tables_(std::move(tables)), changes_(std::move(changes)) {}
  void steer(Port port);
  void steer_default();
  bool shun(std::set<u16>& shunned, u16 kernel, bool on);
  // Those that are not shunned; all, if there is no other.
  std::set<u16> wanted(const std::set<u16>& kernels) const;

  net::SteeringWriter tables_;
  net::TableChangesWriter changes_;
  std::set<u16> up_, draining_, hung_;
  std::map<u16, std::set<u16>> listeners_;  // by port
};

}  // namespace cob::cli
