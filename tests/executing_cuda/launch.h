// What the driver and a kernel's library say to each other.
#pragma once

namespace executing {

struct Dim3 { unsigned x, y, z; };
// A stride is the way from one thread or block to the next that runs, modulo their number.
struct Launch { Dim3 grid, block; long long block_stride, thread_stride; bool cooperative; };
// A kernel. Its parameters are packed when it is launched, as CUDA does, and freed when it has run.
struct Entry {
  void* (*pack)(void**);
  int (*foreign)(void*);  // the number of a pointer that is none to device memory, or -1
  void (*drop)(void*);
  void (*call)(void*);  // for one thread
  void (*run)(const Entry&, void* packed, const Launch&);
  bool waits;  // for other threads
  const char *shared, *shared_end;  // the memory that threads of a block share
};

}  // namespace executing
