// NVIDIA's driver and runtime over host memory: one queue for all streams, in order.
//
// The queue is late: nothing runs until something waits for it, so that memory of the host that is reused before its copy
// ran shows. Pinned memory is read when a copy runs, other memory at once, as CUDA does. Fresh memory is NaN. What CUDA
// leaves undefined, and what is no device memory, is a complaint.
#include <dlfcn.h>
#include <xmmintrin.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <unordered_map>

#include <driver_types.h>

#include "launch.h"

typedef int Status;  // of the driver; 0 is success
static std::recursive_mutex mutex;
#define LOCK std::lock_guard<std::recursive_mutex> lock(mutex)

// ------------------------------------------------------------------ what Python sets and asks
static std::map<std::string, long long> settings = {{"late", 1}, {"flush_denormals", 1}, {"order", 1}, {"race", 0},
                                                  {"multiprocessors", 132}};
static std::map<std::string, long long> counts;
static std::string complaints;

static void complain(const std::string& text) {
  counts["complaints"]++;
  if (complaints.size() < 4000) complaints += text + "\n";
}
extern "C" {
void executing_complain(const char* text) { LOCK; complain(text); }
void executing_count(const char* name) { LOCK; counts[name]++; }
void executing_set(const char* name, long long value) { LOCK; settings.at(name) = value; }
long long executing_setting(const char* name) { LOCK; return settings.at(name); }
long long executing_counted(const char* name) { LOCK; return counts[name]; }
void executing_complaints(char* out, size_t size) {  // and forgets them
  LOCK; snprintf(out, size, "%s", complaints.c_str()); complaints.clear();
}
}

// ------------------------------------------------------------------ memory and the queue
constexpr size_t TOTAL = 1ull << 34;
static std::map<uintptr_t, size_t> device, pinned;
static size_t used = 0;
static std::deque<std::function<void()>> queue;

static bool within(const std::map<uintptr_t, size_t>& memory, const void* address, size_t size = 1) {
  auto found = memory.upper_bound((uintptr_t)address);
  if (found == memory.begin()) return false;
  --found;
  return (uintptr_t)address + size <= found->first + found->second;
}
static void run_queue() {
  while (!queue.empty()) { auto work = std::move(queue.front()); queue.pop_front(); work(); }
}
static void push(std::function<void()> work) {
  queue.push_back(std::move(work));
  if (!settings["late"]) run_queue();
}
static void wait() { counts["synchronizations"]++; run_queue(); }

extern "C" int executing_is_device(const void* address, size_t size) { LOCK; return within(device, address, size); }
extern "C" void executing_push(void (*work)(void*), void* given) { LOCK; push([=] { work(given); }); }

// ------------------------------------------------------------------ the race check
extern "C" { long long executing_thread = 0, executing_interval = 0, executing_epoch = 0; }
namespace {
// reader: the last one; foreign: the last one of another block than that; together: when two threads of a block read.
struct Access { long long writer = -1, written = 0, reader = -1, read = 0, foreign = -1, foreign_read = 0, together = -1; };
std::unordered_map<uintptr_t, Access> shadow;  // of the launch that runs
bool checking = false;
std::string launched;
const executing::Entry* entered;
long long per_block = 1;

bool beside(long long other) { return other / per_block == executing_thread / per_block; }
// Threads of one block are in turn where a barrier lies between them; those of two blocks where one of the grid does.
bool unordered(long long other, long long when) {
  if (other < 0 || other == executing_thread) return false;
  return beside(other) ? when == executing_interval : when >= executing_epoch;
}
void race(const char* what) { counts["races"]++; complain("race in " + launched + ": " + what); }

void read_at(Access& cell) {
  if (unordered(cell.writer, cell.written)) race("a thread reads what another writes");
  if (cell.reader >= 0 && cell.reader != executing_thread) {
    if (!beside(cell.reader)) cell.foreign = cell.reader, cell.foreign_read = cell.read;
    else if (cell.read == executing_interval) cell.together = executing_interval;
  }
  cell.reader = executing_thread, cell.read = executing_interval;
}
void write_at(Access& cell) {
  if (unordered(cell.writer, cell.written)) race("two threads write");
  const bool is_read = unordered(cell.reader, cell.read) || unordered(cell.foreign, cell.foreign_read);
  if (is_read || cell.together == executing_interval) race("a thread writes what another reads");
  cell.writer = executing_thread, cell.written = executing_interval;
}
void accessed(const void* address, size_t size, bool writes) {
  const bool on_device = within(device, address, size);
  const bool is_shared = !on_device && entered->shared <= (const char*)address && (const char*)address < entered->shared_end;
  if (!on_device && !is_shared) return;
  if (on_device) counts[writes ? "bytes_written" : "bytes_read"] += size;
  // What one block shares is no other's: its address with the block in the bits that no address has.
  Access& cell = shadow[(uintptr_t)address + (is_shared ? (uintptr_t)(executing_thread / per_block + 1) << 48 : 0)];
  writes ? write_at(cell) : read_at(cell);
}
}  // namespace
// The compiler calls these at each access that a kernel's text makes.
#define INSTRUMENTED(n)                                                                                     \
  extern "C" void __tsan_read##n(void* address) { if (checking) accessed(address, n, false); }              \
  extern "C" void __tsan_write##n(void* address) { if (checking) accessed(address, n, true); }              \
  extern "C" void __tsan_unaligned_read##n(void* address) { if (checking) accessed(address, n, false); }    \
  extern "C" void __tsan_unaligned_write##n(void* address) { if (checking) accessed(address, n, true); }
INSTRUMENTED(1) INSTRUMENTED(2) INSTRUMENTED(4) INSTRUMENTED(8) INSTRUMENTED(16)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void*, size_t) {}
void __tsan_write_range(void*, size_t) {}
}

extern "C" {
// ------------------------------------------------------------------ the runtime
const char* cudaGetErrorName(cudaError_t status) {
  switch ((int)status) {
    case 0: return "cudaSuccess";
    case 2: return "cudaErrorMemoryAllocation";
    case 600: return "cudaErrorNotReady";
    case 801: return "cudaErrorNotSupported";
  }
  return "cudaErrorOfTheExecutingCUDA";
}
const char* cudaGetErrorString(cudaError_t) { return "an error of the executing CUDA"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = 13000; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { *version = 13020; return cudaSuccess; }
cudaError_t cudaGetDevice(int* number) { *number = 0; return cudaSuccess; }
cudaError_t cudaSetDevice(int number) { return number == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaGetDeviceCount(int* n) { *n = 1; return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attribute, int) {
  switch ((int)attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = settings["multiprocessors"]; break;
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* out, int size, int) { snprintf(out, size, "0000:00:00.0"); return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* out, int) {
  memset(out, 0, sizeof *out);
  strcpy(out->name, "executing CUDA");
  out->major = 9, out->multiProcessorCount = 132, out->warpSize = 32, out->totalGlobalMem = TOTAL;
  out->maxThreadsPerBlock = 1024, out->sharedMemPerBlock = 49152;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { LOCK; wait(); return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { *total = TOTAL; *free = TOTAL - used; return cudaSuccess; }

cudaError_t cudaMalloc(void** out, size_t size) {
  LOCK;
  if (used + size > TOTAL || posix_memalign(out, 512, size ? size : 1)) return cudaErrorMemoryAllocation;
  memset(*out, 0xFF, size);  // NaN in both float types
  device[(uintptr_t)*out] = size, used += size, counts["allocations"]++;
  return cudaSuccess;
}
cudaError_t cudaFree(void* address) {
  LOCK;
  if (!address) return cudaSuccess;
  run_queue();
  auto found = device.find((uintptr_t)address);
  if (found == device.end()) { complain("cudaFree of what was not allocated"); return cudaErrorInvalidValue; }
  used -= found->second;
  device.erase(found);
  free(address);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** out, size_t size, unsigned) {
  LOCK;
  if (posix_memalign(out, 4096, size)) return cudaErrorMemoryAllocation;
  memset(*out, 0xFF, size);
  pinned[(uintptr_t)*out] = size, counts["pinned_allocations"]++, counts["pinned_bytes"] += size;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* address) {
  LOCK;
  run_queue();
  counts["pinned_bytes"] -= pinned[(uintptr_t)address];
  pinned.erase((uintptr_t)address);
  free(address);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* out, const void* address) {
  LOCK;
  memset(out, 0, sizeof *out);
  if (within(device, address)) {
    out->type = cudaMemoryTypeDevice, out->devicePointer = (void*)address;
  } else if (within(pinned, address)) {
    out->type = cudaMemoryTypeHost, out->hostPointer = out->devicePointer = (void*)address;
  } else {
    out->type = cudaMemoryTypeUnregistered, out->hostPointer = (void*)address, out->device = -1;
  }
  return cudaSuccess;
}

static cudaError_t refuse(const char* what) { complain(what); return cudaErrorInvalidValue; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, enum cudaMemcpyKind kind, cudaStream_t) {
  LOCK;
  const bool to_device = within(device, to, size), from_device = within(device, from, size);
  if (kind == cudaMemcpyDefault) {
    kind = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : cudaMemcpyDeviceToHost;
  }
  if (kind == cudaMemcpyHostToDevice) {
    counts["uploads"]++;
    if (!to_device) return refuse("an upload to what is no device memory");
    if (within(pinned, from, size)) {
      push([=] { memcpy(to, from, size); });
    } else {
      std::shared_ptr<char[]> staged(new char[size]);
      memcpy(staged.get(), from, size);
      push([=] { memcpy(to, staged.get(), size); });
    }
  } else if (kind == cudaMemcpyDeviceToHost) {
    counts["reads"]++;
    if (!from_device) return refuse("a read of what is no device memory");
    if (within(pinned, to, size)) {
      push([=] { memcpy(to, from, size); });
    } else {
      wait();
      memcpy(to, from, size);
    }
  } else if (kind == cudaMemcpyDeviceToDevice) {
    counts["copies"]++;
    if (!to_device || !from_device) return refuse("a copy outside device memory");
    const uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;
    const bool overlap = a != b && a < b + size && b < a + size;
    if (overlap) complain("a copy between ranges that overlap: undefined");
    push([=] { overlap ? memset(to, 0xFF, size) : memmove(to, from, size); });
  } else {
    wait();
    memcpy(to, from, size);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, enum cudaMemcpyKind kind) {
  LOCK;
  cudaError_t status = cudaMemcpyAsync(to, from, size, kind, 0);
  wait();
  return status;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t) {
  LOCK;
  counts["memsets"]++;
  if (!within(device, to, size)) return refuse("a memset outside device memory");
  push([=] { memset(to, value, size); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t size) { return cudaMemsetAsync(to, value, size, 0); }

cudaError_t cudaStreamCreate(cudaStream_t* out) {
  LOCK;
  static uintptr_t handle = 0x1000;
  *out = (cudaStream_t)(handle += 16);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned) { return cudaStreamCreate(out); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned, int) { return cudaStreamCreate(out); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamGetFlags(cudaStream_t, unsigned* out) { *out = 0; return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* out) { *out = 0; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { LOCK; wait(); return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t) { LOCK; return queue.empty() ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, enum cudaStreamCaptureStatus* out) {
  *out = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

struct Event { bool done = true; };
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) { *out = (cudaEvent_t) new Event; return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { LOCK; run_queue(); delete (Event*)event; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  LOCK;
  ((Event*)event)->done = false;
  push([=] { ((Event*)event)->done = true; });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) { LOCK; return ((Event*)event)->done ? cudaSuccess : cudaErrorNotReady; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { LOCK; wait(); return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* out, cudaEvent_t, cudaEvent_t) { *out = 1; return cudaSuccess; }
cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

// ------------------------------------------------------------------ the driver
Status cuInit(unsigned) { return 100; }  // no device: NVRTC asks, and does without one
Status cuGetExportTable(const void** out, const void*) { *out = nullptr; return 1; }
Status cuGetErrorName(Status status, const char** out) {
  *out = status == 500 ? "CUDA_ERROR_NOT_FOUND" : status == 1 ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR";
  return 0;
}
Status cuGetErrorString(Status, const char** out) { *out = "an error of the executing CUDA"; return 0; }
Status cuDriverGetVersion(int* out) { *out = 13000; return 0; }
Status cuCtxGetCurrent(void** out) { *out = (void*)0x77; return 0; }
Status cuCtxSetCurrent(void*) { return 0; }
Status cuCtxGetDevice(int* out) { *out = 0; return 0; }

static const char IMAGE[] = "executing CUDA:";  // before the name of a library, in the place of machine code
Status cuModuleLoadData(void** out, const void* image) {
  LOCK;
  if (strncmp((const char*)image, IMAGE, sizeof IMAGE - 1)) { complain("a module of another compiler"); return 200; }
  const std::string folder = getenv("XPNET_EXECUTING_CUDA");
  *out = dlopen((folder + "/libraries/" + ((const char*)image + sizeof IMAGE - 1)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!*out) { complain(dlerror()); return 200; }
  counts["modules"]++;
  return 0;
}
Status cuModuleUnload(void* module) { LOCK; run_queue(); counts["modules"]--; dlclose(module); return 0; }

struct Function { std::string name; const executing::Entry* entry; };
Status cuModuleGetFunction(void** out, void* module, const char* name) {
  LOCK;
  auto entry = (const executing::Entry*)dlsym(module, (std::string("executing_kernel_") + name).c_str());
  if (!entry) return 500;
  *out = new Function{name, entry};
  return 0;
}
// The order in which threads and blocks run: 1 as they are numbered, -1 from the last one on, else a shuffle.
static long long stride(long long n) {
  const long long order = settings["order"];
  return order == 1 || order == -1 ? order : std::gcd(order, n) == 1 ? order : -1;
}
static void run(const Function& function, void* packed, executing::Launch launch) {
  const long long n = (long long)launch.grid.x * launch.grid.y * launch.grid.z;
  per_block = (long long)launch.block.x * launch.block.y * launch.block.z;
  launch.block_stride = stride(n), launch.thread_stride = stride(per_block);
  checking = settings["race"], launched = function.name, entered = function.entry, executing_epoch = ++executing_interval;
  shadow.clear();
  const unsigned before = _mm_getcsr();
  if (settings["flush_denormals"]) _mm_setcsr(before | 0x8040);  // CuPy compiles with -ftz=true
  function.entry->run(*function.entry, packed, launch);
  _mm_setcsr(before);
  checking = false;
}
constexpr int RESIDENT = 2;  // blocks on each multiprocessor
static Status launch(void* called, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                     void** parameters, bool cooperative) {
  LOCK;
  const Function* function = (Function*)called;
  if (cooperative && (long long)gx * gy * gz > RESIDENT * settings["multiprocessors"]) {
    complain("cooperative launch of " + function->name + " on more blocks than are resident");
    return 720;
  }
  counts["launches"]++;
  const bool fits = gx && gy && gz && bx && by && bz && gx < 1u << 31 && gy < 1 << 16 && gz < 1 << 16;
  if (!fits || (unsigned long long)bx * by * bz > 1024) {
    complain("launch of " + function->name + " on a grid that CUDA refuses");
    return 1;
  }
  void* packed = function->entry->pack(parameters);
  const int foreign = function->entry->foreign(packed);
  if (foreign >= 0) {
    complain("launch of " + function->name + ": argument " + std::to_string(foreign) + " is no device memory");
  }
  push([=] {
    if (foreign < 0) run(*function, packed, {{gx, gy, gz}, {bx, by, bz}, 1, 1, cooperative});
    function->entry->drop(packed);
  });
  return 0;
}
Status cuLaunchKernel(void* called, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned, void*, void** parameters, void**) {
  return launch(called, gx, gy, gz, bx, by, bz, parameters, false);
}
Status cuLaunchCooperativeKernel(void* called, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                 unsigned bz, unsigned, void*, void** parameters) {
  return launch(called, gx, gy, gz, bx, by, bz, parameters, true);
}
Status cuFuncGetAttribute(int* out, int attribute, void*) { *out = attribute == 0 ? 1024 : 0; return 0; }
Status cuFuncSetAttribute(void*, int, int) { return 0; }
Status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, void*, int, size_t) { *out = RESIDENT; return 0; }
Status cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) {
  *grid = 132, *block = 1024;
  return 0;
}
}
