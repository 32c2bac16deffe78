// How work is cut for threads.
#pragma once

#include <algorithm>

namespace oc {

// The number of tasks, as a real, that work of so many nanoseconds is worth. Ten microseconds pay for a second thread;
// more than eight tasks are for work that gives each of them forty, for every task reads weights or margins anew.
inline double task_count(double nanoseconds) {
  return std::clamp(nanoseconds / 10e3, 1., std::max(8., nanoseconds / 40e3));
}

}  // namespace oc
