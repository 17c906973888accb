// The order of numbers as whole numbers: what sorting, selecting and sampling compare.
#pragma once
#include "base.cuh"

// Of the bits of an `f32` (`real`) or an `i32`: a number that is the smaller the earlier the value comes. NaN is last in
// both directions, -0 is 0.
DEVFN uint32_t order_of(uint32_t bits, int real, int descending) {
  uint32_t key;
  if (real) {
    if ((bits & 0x7fffffff) > 0x7f800000) return 0xffffffffu;
    if (bits == 0x80000000u) bits = 0;
    key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  } else {
    key = bits ^ 0x80000000u;
  }
  return descending ? ~key : key;
}
