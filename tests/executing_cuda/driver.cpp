// NVIDIA's driver and runtime over host memory, with streams and events.
//
// The queue is late: nothing runs until something waits for it, and then no more than what that waits for, so that memory
// of the host that is reused before its copy ran shows, and work that goes on before another stream has done its part.
// What other streams may do before it is done after it, or first of all, by a switch. Pinned memory is read when a copy
// runs, other memory at once, as CUDA does. Fresh memory is NaN. What CUDA leaves undefined, and what is no device memory,
// is a complaint.
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
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <driver_types.h>

#include "launch.h"

typedef int Status;  // of the driver; 0 is success
static std::recursive_mutex mutex;
#define LOCK std::lock_guard<std::recursive_mutex> lock(mutex)

// ------------------------------------------------------------------ what Python sets and asks
static std::map<std::string, long long> settings = {{"late", 1}, {"flush_denormals", 1}, {"order", 1}, {"race", 0},
                                                  {"multiprocessors", 132}, {"others_first", 0}, {"memory", 1ll << 34}};
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
static std::map<uintptr_t, size_t> device, pinned;
static long long used = 0;

// A piece of work, behind those before it in its stream and what the stream was told to wait for.
struct Work {
  const void* stream;
  std::function<void()> run;
  std::vector<std::shared_ptr<Work>> after;
  bool done = false;
};
typedef std::shared_ptr<Work> Turn;
typedef const void* Stream;
static std::deque<Turn> queue;             // of all streams, as it was asked for
static std::map<Stream, Turn> last;        // of each stream
static std::map<Stream, std::vector<Turn>> told;  // to wait for these before its next work
static std::set<Stream> apart;             // streams that do not wait for the default one, nor it for them

static bool within(const std::map<uintptr_t, size_t>& memory, const void* address, size_t size = 1) {
  auto found = memory.upper_bound((uintptr_t)address);
  if (found == memory.begin()) return false;
  --found;
  return (uintptr_t)address + size <= found->first + found->second;
}
static Stream named(const void* stream) { return (uintptr_t)stream <= 2 ? nullptr : stream; }  // 1 and 2: the default one
static void run_work(Work& work) { work.done = true, work.after.clear(), work.run(), work.run = nullptr; }

static bool is_free(const Work& work) {
  for (const Turn& before : work.after) if (!before->done) return false;
  return !work.done;
}

// Run what these pieces need; before each of them all that other streams may do, if the switch says so.
static void run_for(const std::vector<Turn>& wanted) {
  std::set<const Work*> needed;
  std::set<Stream> waited;
  for (const Turn& turn : wanted) needed.insert(turn.get()), waited.insert(turn->stream);
  for (auto turn = queue.rbegin(); turn != queue.rend(); ++turn) {  // what is waited for was asked for before
    if (needed.count(turn->get())) for (const Turn& before : (*turn)->after) needed.insert(before.get());
  }
  const std::deque<Turn> all = queue;
  for (const Turn& turn : all) {
    if (settings["others_first"]) {
      for (const Turn& other : all) if (!waited.count(other->stream) && is_free(*other)) run_work(*other);
    }
    if (needed.count(turn.get()) && !turn->done) run_work(*turn);
  }
  while (!queue.empty() && queue.front()->done) queue.pop_front();
}
static void run_queue() { run_for({queue.begin(), queue.end()}); }
static Turn push(const void* stream, std::function<void()> run) {
  const Stream own = named(stream);
  Turn turn(new Work{own, std::move(run), std::move(told[own])});
  told[own].clear();
  for (auto& [other, its] : last) {
    const bool is_behind = other == own || ((!own || !other) && !apart.count(own) && !apart.count(other));
    if (is_behind && !its->done) turn->after.push_back(its);
  }
  queue.push_back(turn), last[own] = turn;
  if (!settings["late"]) run_queue();
  return turn;
}
static void wait() { counts["synchronizations"]++; run_queue(); }
static void wait_for(const void* stream) {
  counts["synchronizations"]++;
  Turn all = push(stream, [] {});
  run_for({all});
}

extern "C" int executing_is_device(const void* address, size_t size) { LOCK; return within(device, address, size); }
extern "C" void executing_push(const void* stream, void (*work)(void*), void* given) {
  LOCK;
  push(stream, [=] { work(given); });
}

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
  if (size == 16) {
    counts[writes ? "vectors_written" : "vectors_read"]++;
    if ((uintptr_t)address % size) complain("a vector that is not aligned, in " + launched);
  }
  if (on_device) counts[writes ? "bytes_written" : "bytes_read"] += size;
  // What one block shares is no other's: its address with the block in the bits that no address has.
  const uintptr_t first = (uintptr_t)address + (is_shared ? (uintptr_t)(executing_thread / per_block + 1) << 48 : 0);
  for (size_t at = 0; at < size; at += size == 16 ? 4 : size) {  // a vector of numbers: each of them, as others name it
    Access& cell = shadow[first + at];
    writes ? write_at(cell) : read_at(cell);
  }
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
  out->major = 9, out->multiProcessorCount = 132, out->warpSize = 32, out->totalGlobalMem = settings["memory"];
  out->maxThreadsPerBlock = 1024, out->sharedMemPerBlock = 49152;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { LOCK; wait(); return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  LOCK;
  *total = settings["memory"], *free = std::max(0ll, settings["memory"] - used);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** out, size_t size) {
  LOCK;
  if (used + (long long)size > settings["memory"] || posix_memalign(out, 512, size ? size : 1)) return cudaErrorMemoryAllocation;
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
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  LOCK;
  const bool to_device = within(device, to, size), from_device = within(device, from, size);
  if (kind == cudaMemcpyDefault) {
    kind = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : cudaMemcpyDeviceToHost;
  }
  if (kind == cudaMemcpyHostToDevice) {
    counts["uploads"]++;
    if (!to_device) return refuse("an upload to what is no device memory");
    if (within(pinned, from, size)) {
      push(stream, [=] { memcpy(to, from, size); });
    } else {
      std::shared_ptr<char[]> staged(new char[size]);
      memcpy(staged.get(), from, size);
      push(stream, [=] { memcpy(to, staged.get(), size); });
    }
  } else if (kind == cudaMemcpyDeviceToHost) {
    counts["reads"]++;
    if (!from_device) return refuse("a read of what is no device memory");
    if (within(pinned, to, size)) {
      push(stream, [=] { memcpy(to, from, size); });
    } else {
      wait_for(stream);
      memcpy(to, from, size);
    }
  } else if (kind == cudaMemcpyDeviceToDevice) {
    counts["copies"]++;
    if (!to_device || !from_device) return refuse("a copy outside device memory");
    const uintptr_t a = (uintptr_t)to, b = (uintptr_t)from;
    const bool overlap = a != b && a < b + size && b < a + size;
    if (overlap) complain("a copy between ranges that overlap: undefined");
    push(stream, [=] { overlap ? memset(to, 0xFF, size) : memmove(to, from, size); });
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
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
  LOCK;
  counts["memsets"]++;
  if (!within(device, to, size)) return refuse("a memset outside device memory");
  push(stream, [=] { memset(to, value, size); });
  return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t size) { return cudaMemsetAsync(to, value, size, 0); }

cudaError_t cudaStreamCreate(cudaStream_t* out) {
  LOCK;
  static uintptr_t handle = 0x1000;
  *out = (cudaStream_t)(handle += 16);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  LOCK;
  cudaStreamCreate(out);
  if (flags & cudaStreamNonBlocking) apart.insert(*out);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int) {
  return cudaStreamCreateWithFlags(out, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  LOCK;
  if (last.count(stream)) run_for({last[stream]});
  last.erase(stream), told.erase(stream), apart.erase(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t, unsigned* out) { *out = 0; return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t, int* out) { *out = 0; return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { LOCK; wait_for(stream); return cudaSuccess; }
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  LOCK;
  auto found = last.find(named(stream));
  return found == last.end() || found->second->done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, enum cudaStreamCaptureStatus* out) {
  *out = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

struct Event { Turn turn; };  // the work before which it was recorded last
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) { *out = (cudaEvent_t) new Event; return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { LOCK; delete (Event*)event; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  LOCK;
  ((Event*)event)->turn = push(stream, [] {});
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  LOCK;
  if (Turn turn = ((Event*)event)->turn; turn && !turn->done) told[named(stream)].push_back(turn);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  LOCK;
  const Turn turn = ((Event*)event)->turn;
  return !turn || turn->done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  LOCK;
  counts["synchronizations"]++;
  if (Turn turn = ((Event*)event)->turn; turn && !turn->done) run_for({turn});
  return cudaSuccess;
}
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
                     const void* stream, void** parameters, bool cooperative) {
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
  push(stream, [=] {
    if (foreign < 0) run(*function, packed, {{gx, gy, gz}, {bx, by, bz}, 1, 1, cooperative});
    function->entry->drop(packed);
  });
  return 0;
}
Status cuLaunchKernel(void* called, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned, void* stream, void** parameters, void**) {
  return launch(called, gx, gy, gz, bx, by, bz, stream, parameters, false);
}
Status cuLaunchCooperativeKernel(void* called, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                 unsigned bz, unsigned, void* stream, void** parameters) {
  return launch(called, gx, gy, gz, bx, by, bz, stream, parameters, true);
}
Status cuFuncGetAttribute(int* out, int attribute, void*) { *out = attribute == 0 ? 1024 : 0; return 0; }
Status cuFuncSetAttribute(void*, int, int) { return 0; }
Status cuOccupancyMaxActiveBlocksPerMultiprocessor(int* out, void*, int, size_t) { *out = RESIDENT; return 0; }
Status cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void*, void*, size_t, int) {
  *grid = 132, *block = 1024;
  return 0;
}
}
