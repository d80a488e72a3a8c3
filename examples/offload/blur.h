// The task that blur.cc asks for and blur_tasks.cc has: each element becomes the mean of three.
#pragma once

#include <offload/task.h>

inline constexpr cob::offload::Task<cob::offload::In<float>, cob::offload::Out<float>> blur{"blur"};
