// As whom files are asked for; asking.h. dlsym(3).
#include "mount/asking.h"

#include <dlfcn.h>

namespace cob::mount {
namespace {

call::AskAsFunction ask_as;
call::OpenedStatusFunction status_of_opened;
thread_local const Asking* innermost;

template <typename Function>
void find(const char* name, Function& into) {
  into = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
}

}  // namespace

bool find_shim() {
  find(call::ask_as_name, ask_as);
  find(call::opened_status_name, status_of_opened);
  return ask_as != nullptr && status_of_opened != nullptr;
}

void opened_status(struct statx& status) { status_of_opened(&status); }

Asking::Asking()
    : whom_{.others = false, .uid = 0, .gid = 0, .pid = 0, .umask = 0}, around_(innermost) {
  say();
}

Asking::Asking(fuse_req_t sender) : whom_{}, around_(innermost) {
  const fuse_ctx* context = fuse_req_ctx(sender);
  whom_ = {.others = ::geteuid() == 0,
           .uid = context->uid,
           .gid = context->gid,
           .pid = static_cast<u32>(context->pid),
           .umask = context->umask & 0777};
  say();
}

void Asking::say() {
  innermost = this;
  ask_as(&whom_);
}

Asking::~Asking() {
  innermost = around_;
  ask_as(around_ == nullptr ? nullptr : &around_->whom_);
}

}  // namespace cob::mount
