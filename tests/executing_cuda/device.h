// CUDA C++ as C++: what a kernel's text takes from CUDA, and how its threads are run, one after the other.
//
// The compiler instruments every access to memory (-fsanitize=thread, without its library): the driver's functions of
// these names judge races and addresses. Threads that wait for each other run as fibers.
#pragma once
#include <cassert>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fibers.h"
#include "launch.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static __attribute__((section("of_the_block")))
#define __launch_bounds__(...)
#define __restrict__

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(2) uchar2 { unsigned char x, y; };
typedef executing::Dim3 dim3;
static dim3 threadIdx, blockIdx, blockDim, gridDim;

using std::abs; using std::ceil; using std::copysign; using std::exp; using std::expm1; using std::fabs;
using std::floor; using std::fmod; using std::isfinite; using std::isinf; using std::isnan; using std::log;
using std::log1p; using std::log2; using std::pow; using std::rint; using std::signbit; using std::sqrt;
using std::tanh; using std::trunc;
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
template <class T> static inline T max(T a, T b) { return a > b ? a : b; }
template <class T> static inline T min(T a, T b) { return a < b ? a : b; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
template <class To, class From> static inline To same_bits(From x) { To y; memcpy(&y, &x, sizeof y); return y; }
static inline float __int_as_float(int x) { return same_bits<float>(x); }
static inline int __float_as_int(float x) { return same_bits<int>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return same_bits<long long>(x); }
#define ATOMIC(T)                                                                                        \
  static inline T atomicAdd(T* at, T value) { T old = *at; *at = old + value; return old; }              \
  static inline T atomicCAS(T* at, T compare, T value) { T old = *at; if (old == compare) *at = value; return old; }
ATOMIC(int) ATOMIC(unsigned) ATOMIC(unsigned long long) ATOMIC(float) ATOMIC(double)

extern "C" int executing_is_device(const void* address, size_t size);
extern "C" void executing_complain(const char*);
// Who accesses memory, for the race check; no barrier of the grid was passed since the interval executing_epoch.
extern "C" long long executing_thread, executing_interval, executing_epoch;

namespace executing {

static inline long long place(long long turn, long long stride, long long n) { return (turn * stride % n + n) % n; }
static inline dim3 at(long long i, dim3 n) {
  return {unsigned(i % n.x), unsigned(i / n.x % n.y), unsigned(i / n.x / n.y)};
}

// ---- threads that wait for each other
static const Entry* entered;
static void* arguments;
static void enter() { entered->call(arguments); }

// The memory that the threads of a block share; each block finds numbers there that are none.
extern "C" {
extern char __start_of_the_block[] __attribute__((weak, visibility("hidden")));
extern char __stop_of_the_block[] __attribute__((weak, visibility("hidden")));
}
static void forget_shared() {
  if (__start_of_the_block) memset(__start_of_the_block, 0xFF, __stop_of_the_block - __start_of_the_block);
}

static bool run_block(const Launch& launch, long long block, fibers::Fiber* its) {
  const long long n = (long long)blockDim.x * blockDim.y * blockDim.z;
  blockIdx = at(block, gridDim);
  forget_shared();
  return fibers::run(
      n, its, [&](long long turn) { return place(turn, launch.thread_stride, n); },
      [&](long long i) { threadIdx = at(i, blockDim), executing_thread = block * n + i; },
      [] { executing_interval++; });
}

// A grid whose blocks wait for each other, all of them begun; else one block after the other.
static void run_waiting(const Entry& entry, void* packed, const Launch& launch) {
  const long long n_blocks = (long long)gridDim.x * gridDim.y * gridDim.z;
  const long long n = (long long)blockDim.x * blockDim.y * blockDim.z;
  entered = &entry, arguments = packed;
  if (launch.cooperative) fibers::begin(n_blocks * n, enter);
  for (bool goes_on = true; goes_on; executing_epoch = ++executing_interval) {
    long long n_done = 0;
    for (long long turn = 0; turn < n_blocks; turn++) {
      const long long block = place(turn, launch.block_stride, n_blocks);
      if (!launch.cooperative) fibers::begin(n, enter);
      fibers::Fiber* its = fibers::all + (launch.cooperative ? block * n : 0);
      for (long long i = 0; i < n; i++) {
        if (its[i].state == fibers::WAITS_FOR_GRID) its[i].state = fibers::READY;
      }
      bool agree = run_block(launch, block, its);
      const bool is_done = its[0].state == fibers::DONE;
      n_done += is_done;
      agree = agree && (is_done || launch.cooperative);
      if (!agree || (turn + 1 == n_blocks && n_done % n_blocks)) {
        executing_complain("threads wait for ever: not all of them come to the barrier");
        return;
      }
    }
    goes_on = n_done == 0;
  }
}

// ---- a kernel as the driver sees it
template <class T> static bool is_foreign(const T&) { return false; }
template <class T> static bool is_foreign(T* const& pointer) { return pointer && !executing_is_device(pointer, 1); }

static void run(const Entry& entry, void* packed, const Launch& launch) {
  gridDim = launch.grid, blockDim = launch.block;
  if (entry.waits) return run_waiting(entry, packed, launch);
  const long long n_blocks = (long long)gridDim.x * gridDim.y * gridDim.z;
  const long long n_threads = (long long)blockDim.x * blockDim.y * blockDim.z;
  for (long long turn = 0; turn < n_blocks; turn++) {
    const long long block = place(turn, launch.block_stride, n_blocks);
    blockIdx = at(block, gridDim);
    for (long long k = 0; k < n_threads; k++) {
      const long long thread = place(k, launch.thread_stride, n_threads);
      threadIdx = at(thread, blockDim), executing_thread = block * n_threads + thread;
      entry.call(packed);
    }
  }
}

}  // namespace executing

static inline void __syncthreads() { fibers::wait(fibers::WAITS_FOR_BLOCK); }
#define grid_barrier(arrived) fibers::wait(fibers::WAITS_FOR_GRID)  // in the place of a text's own
