// libc's calls that are made of a terminal's requests. termios(3), isatty(3). Model: terminal.h.
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "glue.h"
#include "shim/file.h"
#include "shim/terminal.h"

namespace cob::shim {

namespace {

// Linux's struct termios; libc's is longer.
struct KernelTermios {
  u32 input, output, control, local;
  u8 line;
  u8 characters[19];
};
static_assert(sizeof(KernelTermios) == 36);

}  // namespace

int cob_isatty(int fd) {
  if (lookup_file(fd) == nullptr) return real_isatty(fd);
  KernelTermios settings;
  return file_terminal(fd, TCGETS, &settings) == 0 ? 1 : 0;
}

int cob_tcgetattr(int fd, termios* settings) {
  if (lookup_file(fd) == nullptr) return real_tcgetattr(fd, settings);
  KernelTermios told;
  if (file_terminal(fd, TCGETS, &told) != 0) return -1;
  memset(settings, 0, sizeof *settings);
  settings->c_iflag = told.input;
  settings->c_oflag = told.output;
  settings->c_cflag = told.control;
  settings->c_lflag = told.local;
  settings->c_line = told.line;
  memcpy(settings->c_cc, told.characters, sizeof told.characters);
  settings->c_ispeed = settings->c_ospeed = told.control & (CBAUD | CBAUDEX);
  return 0;
}

int cob_tcsetattr(int fd, int action, const termios* settings) {
  if (lookup_file(fd) == nullptr) return real_tcsetattr(fd, action, settings);
  if (action != TCSANOW && action != TCSADRAIN && action != TCSAFLUSH) return fail(EINVAL);
  KernelTermios wanted{settings->c_iflag, settings->c_oflag, settings->c_cflag,
                       settings->c_lflag, settings->c_line,  {}};
  memcpy(wanted.characters, settings->c_cc, sizeof wanted.characters);
  return file_terminal(fd, TCSETS + static_cast<unsigned long>(action), &wanted);
}

}  // namespace cob::shim
