// Threads that wait for each other, as fibers of one thread of the host: contexts to begin with, then jumps, which make
// no system calls. Plain C but for names, as hostcuda.py compiles it without the library of C++.
#pragma once
#include <setjmp.h>
#include <stdlib.h>
#include <ucontext.h>

namespace fibers {

enum State { READY, WAITS_FOR_BLOCK, WAITS_FOR_GRID, DONE };
struct Fiber {
  ucontext_t context;
  jmp_buf waits;
  char* stack;
  bool begun;
  State state;
};
static Fiber* all;  // kept from launch to launch
static long long made;
static Fiber* running;
static jmp_buf home;
static void (*work)();

static void wait(State what) {
  running->state = what;
  if (!_setjmp(running->waits)) _longjmp(home, 1);
}
static void enter() {
  for (;; wait(DONE)) work();  // what is done may be asked for the next work
}
static void go_on() {
  running->state = READY;
  if (_setjmp(home)) return;
  if (running->begun) _longjmp(running->waits, 1);
  running->begun = true;
  setcontext(&running->context);
}

// Have n fibers that do this from the beginning.
static void begin(long long n, void (*what)()) {
  constexpr size_t size = 1 << 16;
  work = what;
  if (made < n) {  // contexts and jumps hold addresses: they are not moved
    all = (Fiber*)malloc(n * sizeof(Fiber));
    for (made = 0; made < n; made++) all[made].stack = (char*)malloc(size), all[made].state = READY;
  }
  for (long long i = 0; i < n; i++) {
    if (all[i].state == DONE) {
      all[i].state = READY;
      continue;
    }
    all[i].begun = false, all[i].state = READY;
    getcontext(&all[i].context);
    all[i].context.uc_stack.ss_sp = all[i].stack, all[i].context.uc_stack.ss_size = size;
    all[i].context.uc_link = nullptr;
    makecontext(&all[i].context, enter, 0);
  }
}

// Run n fibers from one barrier of their block to the next, until each waits for the grid or is done.
// turn_of(k): which one is the k-th to run.  resume(i): the fiber i goes on now.  passed(): a barrier was passed.
// Returns whether all wait for the same: a thread that waits for others that wait elsewhere would wait for ever.
template <class Turn, class Resume, class Passed>
static bool run(long long n, Fiber* block, Turn turn_of, Resume resume, Passed passed) {
  for (;;) {
    long long waiting[4] = {0, 0, 0, 0};
    for (long long k = 0; k < n; k++) {
      const long long i = turn_of(k);
      running = block + i;
      if (running->state == READY || running->state == WAITS_FOR_BLOCK) {
        resume(i);
        go_on();
      }
      waiting[running->state]++;
    }
    passed();
    if (waiting[WAITS_FOR_BLOCK] == 0) return waiting[WAITS_FOR_GRID] % n == 0;
    if (waiting[WAITS_FOR_GRID]) return false;
  }
}

}  // namespace fibers
