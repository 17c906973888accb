// recurrent.cuh: the steps of sequences and the cells of LSTM and GRU, which the kernels of recurrent.cu and
// recurrent_small.cu share. Formulas: the op set's (gates i f g o and r z n, a GRU's reset after the product).
#pragma once

struct Steps {
  const int* lengths;  // null: all steps
  int batch, time, hidden, backward;
  __device__ __forceinline__ int length(int b) const {
    if (b >= batch) return 0;
    int n = lengths ? lengths[b] : time;
    return n < 0 ? 0 : n < time ? n : time;
  }
  // The step taken before step t of a sequence, -1 at its start; the one after it, -1 at its end.
  __device__ __forceinline__ int before(int t, int length) const {
    if (!backward) return t - 1;
    return t + 1 < length ? t + 1 : -1;
  }
  __device__ __forceinline__ int after(int t, int length) const {
    if (backward) return t - 1;
    return t + 1 < length ? t + 1 : -1;
  }
  __device__ __forceinline__ int first(int length) const { return backward ? length - 1 : 0; }
  __device__ __forceinline__ size_t at(int b, int t) const { return (size_t)b * time + t; }
};
#define STEPS const int *lengths, int batch, int time, int hidden, int backward
#define STEPS_ARGS                                                                                               \
  Steps { lengths, batch, time, hidden, backward }

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// The cell of an LSTM: from its activations' arguments and cell to those and its output.
__device__ __forceinline__ float lstm_cell(float (&a)[4], float& c) {
  a[0] = sigmoid(a[0]);
  a[1] = sigmoid(a[1]);
  a[2] = tanhf(a[2]);
  a[3] = sigmoid(a[3]);
  c = a[1] * c + a[0] * a[2];
  return a[3] * tanhf(c);
}
// The cell of a GRU: a holds what the input gives, s what the state gives; a becomes r, z, n.
__device__ __forceinline__ float gru_cell(float (&a)[3], const float (&s)[3], float h) {
  a[0] = sigmoid(a[0] + s[0]);
  a[1] = sigmoid(a[1] + s[1]);
  a[2] = tanhf(a[2] + a[0] * s[2]);
  return (1.f - a[1]) * a[2] + a[1] * h;
}
// Gradients of the gates' arguments; dc becomes what goes to the step before.
__device__ __forceinline__ void lstm_back(const float (&a)[4], float c, float c_before, float dh, float& dc, float (&da)[4]) {
  float t = tanhf(c);
  dc += dh * a[3] * (1.f - t * t);
  da[0] = dc * a[2] * a[0] * (1.f - a[0]);
  da[1] = dc * c_before * a[1] * (1.f - a[1]);
  da[2] = dc * a[0] * (1.f - a[2] * a[2]);
  da[3] = dh * t * a[3] * (1.f - a[3]);
  dc *= a[1];
}
// s holds r, z, n, q. Gives what of dh goes to the state before past the product.
__device__ __forceinline__ float gru_back(const float (&s)[4], float h_before, float dh, float (&da)[3]) {
  float dn = dh * (1.f - s[1]) * (1.f - s[2] * s[2]);
  da[0] = dn * s[3] * s[0] * (1.f - s[0]);
  da[1] = dh * (h_before - s[2]) * s[1] * (1.f - s[1]);
  da[2] = dn;
  return dh * s[1];
}
