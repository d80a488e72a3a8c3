// The command table of `cob bench`.
// Each measurement prints a table for people and writes its figures as one flat JSON object
// (--json). Called by the CLI's main thread.
#include "bench/bench.h"

#include "bench/angel.h"
#include "bench/calls.h"
#include "bench/connections.h"
#include "bench/files.h"
#include "bench/floor.h"
#include "bench/messages.h"
#include "bench/migrate.h"
#include "bench/offload.h"
#include "bench/options.h"
#include "bench/peers.h"
#include "bench/servers.h"

namespace cob::bench {

int bench_main(int argc, char** argv) {
  Options options;
  switch (parse_options(argc, argv, options)) {
    case Parsed::done:
      return 0;
    case Parsed::wrong:
      return 2;
    case Parsed::run:
      break;
  }
  if (options.measurement == "floor") return floor_main(options);
  if (options.measurement == "messages") return messages_main(options);
  if (options.measurement == "peers") return peers_main(options);
  if (options.measurement == "calls") return calls_main(options);
  if (options.measurement == "files") return files_main(options);
  if (options.measurement == "migrate") return migrate_main(options);
  if (options.measurement == "angel") return angel_main(options);
  if (options.measurement == "offload") return offload_main(options);
  if (options.measurement == "connections") return connections_main(options);
  return servers_main(options);
}

}  // namespace cob::bench
