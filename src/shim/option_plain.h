// Socket options that have no effect on a cob socket: checked, kept and read back as Linux does,
// and set on the host socket should it become one. socket(7), tcp(7), ip(7). The socket's lock.
#pragma once

#include "shim/socket.h"

namespace cob::shim {

struct PlainOption {
  int level, name;
  int initial;
  int least, most;
  enum Form : u8 { number, boolean, differentiated_services } form;
};

// Null: the option has an effect, or is unknown.
const PlainOption* plain_option(int level, int name);
// 0 or an errno.
int check_plain(const PlainOption& option, int value);
int read_plain(const Socket* socket, const PlainOption& option);
// REQUIRES: one of them.
bool reads_true(const Socket* socket, int level, int name);

// REQUIRES: there is such an option (kept_options has room for them all).
void keep_option(Socket* socket, int level, int name, const void* value, socklen_t length);
// An accepted socket has what was set on its listener.
void inherit_plain(const Socket* listener, Socket* accepted);

}  // namespace cob::shim
