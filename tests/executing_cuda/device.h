// CUDA C++ as C++: what a kernel's text takes from CUDA, and how its threads are run, one after the other.
//
// The compiler instruments every access to memory (-fsanitize=thread, without its library): the driver's functions of
// these names judge races and addresses. Threads that wait for each other run as fibers.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cassert>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "launch.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__

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
extern "C" long long executing_thread, executing_interval;  // who accesses memory: for the race check

namespace executing {

static inline long long place(long long turn, long long stride, long long n) { return (turn * stride % n + n) % n; }
static inline dim3 at(long long i, dim3 n) {
  return {unsigned(i % n.x), unsigned(i / n.x % n.y), unsigned(i / n.x / n.y)};
}

// ---- threads of a block that wait for each other: contexts to begin with, then jumps, which make no system calls
struct Fiber {
  ucontext_t context;
  jmp_buf waits;
  std::unique_ptr<char[]> stack;
  bool begun, done;
  dim3 index;
  long long thread;
};
static std::vector<Fiber> fibers;  // kept from block to block
static Fiber* running;
static jmp_buf home;
static const Entry* entered;
static void* arguments;
static void enter() {
  entered->call(entered->kernel, arguments);
  running->done = true;
  _longjmp(home, 1);
}
static void go_on(Fiber& fiber) {
  if (_setjmp(home)) return;
  if (fiber.begun) _longjmp(fiber.waits, 1);
  fiber.begun = true;
  setcontext(&fiber.context);
}

static void run_block(const Entry& entry, void* packed, const Launch& launch, long long first) {
  constexpr size_t size = 1 << 16;
  const long long n = (long long)blockDim.x * blockDim.y * blockDim.z;
  if (fibers.size() < (size_t)n) fibers.resize(n);
  entered = &entry, arguments = packed;
  for (long long i = 0; i < n; i++) {
    Fiber& fiber = fibers[i];
    if (!fiber.stack) fiber.stack.reset(new char[size]);
    fiber.begun = fiber.done = false, fiber.index = at(i, blockDim), fiber.thread = first + i;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (bool any = true; any; executing_interval++) {  // from one barrier to the next
    any = false;
    for (long long turn = 0; turn < n; turn++) {
      running = &fibers[place(turn, launch.thread_stride, n)];
      if (running->done) continue;
      any = true, threadIdx = running->index, executing_thread = running->thread;
      go_on(*running);
    }
  }
}

// ---- a kernel as the driver sees it
template <class T> struct Parameter { static bool foreign(const T&) { return false; } };
template <class T> struct Parameter<T*> {
  static bool foreign(T* const& pointer) { return pointer && !executing_is_device(pointer, 1); }
};

// What kernels of the same parameters share.
template <class... A> struct Parameters {
  typedef std::tuple<A...> Packed;
  template <size_t... i> static void* pack(void** from, std::index_sequence<i...>) {
    return new Packed(*(A*)from[i]...);
  }
  static void* pack(void** from) { return pack(from, std::index_sequence_for<A...>()); }
  template <size_t... i> static int foreign(Packed& given, std::index_sequence<i...>) {
    int found = -1;
    ((found < 0 && Parameter<A>::foreign(std::get<i>(given)) ? (void)(found = i) : (void)0), ...);
    return found;
  }
  static int foreign(void* packed) { return foreign(*(Packed*)packed, std::index_sequence_for<A...>()); }
  static void drop(void* packed) { delete (Packed*)packed; }
  static void call(void* kernel, void* packed) { std::apply((void (*)(A...))kernel, *(Packed*)packed); }
};

static void run(const Entry& entry, void* packed, const Launch& launch) {
  gridDim = launch.grid, blockDim = launch.block;
  const long long n_blocks = (long long)gridDim.x * gridDim.y * gridDim.z;
  const long long n_threads = (long long)blockDim.x * blockDim.y * blockDim.z;
  for (long long turn = 0; turn < n_blocks; turn++) {
    const long long block = place(turn, launch.block_stride, n_blocks);
    blockIdx = at(block, gridDim);
    executing_interval++;
    if (entry.waits) {
      run_block(entry, packed, launch, block * n_threads);
      continue;
    }
    for (long long k = 0; k < n_threads; k++) {
      const long long thread = place(k, launch.thread_stride, n_threads);
      threadIdx = at(thread, blockDim), executing_thread = block * n_threads + thread;
      entry.call(entry.kernel, packed);
    }
  }
}

template <class... A> constexpr Entry entry_of(void (*kernel)(A...), bool waits) {
  typedef Parameters<A...> P;
  return {P::pack, P::foreign, P::drop, P::call, run, (void*)kernel, waits};
}

}  // namespace executing

static inline void __syncthreads() {
  if (!_setjmp(executing::running->waits)) _longjmp(executing::home, 1);
}
