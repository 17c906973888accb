// What a kernel says about data that it refuses (src/status.rs is the reader): the first one to find a wrong
// index writes it. `status` may be null: then nobody asks.
#pragma once

enum { STATUS_INDEX = 1, STATUS_ROW = 2, STATUS_TARGET = 3, STATUS_EXPERT = 4 };

// `index` where it is one of `bound`, else 0 and a note.
__device__ __forceinline__ int checked(int* status, int what, int index, int bound) {
  if ((unsigned)index < (unsigned)bound) return index;
  if (status && atomicCAS(status, 0, what) == 0) {
    status[1] = index;
    status[2] = bound;
  }
  return 0;
}
