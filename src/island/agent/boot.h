// What the first process of a guest does before there is an island: file systems, modules, the
// network, the port to the stand-in. Model: the image (tools/island-image.sh) names what it has; a
// part that the kernel has built in is missing there, and passed over. proc(5), finit_module(2),
// netdevice(7). Once, before anything else.
#pragma once

#include "base/fd.h"
#include "base/result.h"

namespace cob::island {

// /proc, /sys, /dev, /tmp, /run.
Result<void> mount_file_systems();
// Those that /usr/lib/cob/modules lists.
void load_modules();
// QEMU's user network: the guest is 10.0.2.15 there. And the loopback.
Result<void> set_up_network();
// The virtio port named "cob"; waits for it for a few seconds.
Result<Fd> open_port();

}  // namespace cob::island
