/* A libcuda.so.1 for tests on machines without an NVIDIA GPU: one pretended device for clients of the CUDA
 * *driver* API (pycuda, ctypes). Device memory is host memory, and nothing is ever computed here.
 *
 * It is strict where real hardware is strict:
 *   - allocation, copies, streams and events need a context that is current in the calling thread (error 201);
 *   - asynchronous work runs when its stream is synchronised, not before: a forgotten wait shows stale bytes;
 *   - the size of the device's memory is enforced (error 2);
 *   - a lost context (FAKECUDA_LOSE_AFTER) is lost for good: every later call fails with error 719.
 * Events read the real clock when the stream reaches them.
 *
 * Programs that start through the CUDA *runtime* (libnvinfer does) are not served: the runtime authenticates
 * the driver, and that check is neither answered nor imitated (cuGetExportTable refuses).
 *
 * Environment: FAKECUDA_NAME (NVIDIA Tegra X1), FAKECUDA_CC (5.3), FAKECUDA_MEM_MB (3956), FAKECUDA_DEVICES (1),
 * FAKECUDA_DRIVER (10020), FAKECUDA_LOSE_AFTER (0: never; n: the n-th copy and all that follows fail).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))
typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct { unsigned char bytes[16]; } CUuuid;
enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801
};
static void *pointer(CUdeviceptr address) { return (void *)(uintptr_t)address; }

/* ------------------------------------------------------------------------------------------ the device */
static struct { char name[128]; int major, minor, devices, driver; long lose_after; size_t memory; } device;
static pthread_once_t configured = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}
static void read_environment(void) {
    const char *name = getenv("FAKECUDA_NAME"), *capability = getenv("FAKECUDA_CC");
    snprintf(device.name, sizeof device.name, "%s", name && *name ? name : "NVIDIA Tegra X1");
    if (!capability || sscanf(capability, "%d.%d", &device.major, &device.minor) != 2) {
        device.major = 5;
        device.minor = 3;
    }
    device.devices = (int)number("FAKECUDA_DEVICES", 1);
    device.driver = (int)number("FAKECUDA_DRIVER", 10020);
    device.lose_after = number("FAKECUDA_LOSE_AFTER", 0);
    device.memory = (size_t)number("FAKECUDA_MEM_MB", 3956) << 20;
}
static void configure(void) { pthread_once(&configured, read_environment); }

API CUresult cuInit(unsigned flags) { configure(); return device.devices ? OK : NO_DEVICE; }
API CUresult cuDriverGetVersion(int *version) { configure(); *version = device.driver; return OK; }
API CUresult cuDeviceGetCount(int *count) { configure(); *count = device.devices; return OK; }
API CUresult cuDeviceGet(CUdevice *out, int index) {
    configure();
    if (index < 0 || index >= device.devices) return INVALID_DEVICE;
    *out = index;
    return OK;
}
API CUresult cuDeviceGetName(char *out, int size, CUdevice d) { snprintf(out, size, "%s", device.name); return OK; }
API CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice d) {
    *major = device.major;
    *minor = device.minor;
    return OK;
}
API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice d) { *bytes = device.memory; return OK; }
API CUresult cuDeviceGetUuid(CUuuid *out, CUdevice d) { memset(out, 0xfa, sizeof *out); return OK; }
API CUresult cuDeviceGetPCIBusId(char *out, int size, CUdevice d) { snprintf(out, size, "0000:00:00.0"); return OK; }
API CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice d) {
    switch (attribute) {
    case 1: case 2: *value = 1024; break;               /* threads per block, block width */
    case 10: *value = 32; break;                        /* warp */
    case 18: *value = 1; break;                         /* integrated */
    case 19: *value = 1; break;                         /* can map host memory */
    case 41: *value = 1; break;                         /* unified addressing */
    case 75: *value = device.major; break;
    case 76: *value = device.minor; break;
    default: *value = 0;
    }
    return OK;
}

/* ---------------------------------------------------------------------------------------------- contexts */
typedef struct { unsigned magic, flags; int primary; } Context;
static Context primary = { 0xC0DE, 0, 1 };
static long primary_references;
static __thread Context *stack[64];
static __thread int depth;
static int lost;

static Context *current(void) { return depth ? stack[depth - 1] : NULL; }
static CUresult ready(void) { return lost ? LAUNCH_FAILED : current() ? OK : INVALID_CONTEXT; }
#define NEED_CONTEXT do { CUresult state = ready(); if (state) return state; } while (0)

API CUresult cuCtxPushCurrent_v2(Context *c) {
    if (!c || c->magic != 0xC0DE || depth == 64) return INVALID_CONTEXT;
    stack[depth++] = c;
    return OK;
}
API CUresult cuCtxPopCurrent_v2(Context **c) {
    if (!depth) return INVALID_CONTEXT;
    depth--;
    if (c) *c = stack[depth];
    return OK;
}
API CUresult cuCtxCreate_v2(Context **out, unsigned flags, CUdevice d) {
    configure();
    if (d >= device.devices) return INVALID_DEVICE;
    Context *c = calloc(1, sizeof *c);
    c->magic = 0xC0DE;
    c->flags = flags;
    *out = c;
    return cuCtxPushCurrent_v2(c);
}
API CUresult cuCtxCreate_v3(Context **out, void *affinity, int n, unsigned flags, CUdevice d) { return cuCtxCreate_v2(out, flags, d); }
API CUresult cuCtxCreate_v4(Context **out, void *parameters, unsigned flags, CUdevice d) { return cuCtxCreate_v2(out, flags, d); }
API CUresult cuCtxDestroy_v2(Context *c) {
    if (current() == c) depth--;
    if (c && c != &primary) c->magic = 0;               /* kept allocated: a stale handle must fail, not crash */
    return OK;
}
API CUresult cuCtxDetach(Context *c) { return cuCtxDestroy_v2(c); }
API CUresult cuCtxAttach(Context **c, unsigned flags) { *c = current(); return current() ? OK : INVALID_CONTEXT; }
API CUresult cuCtxSetCurrent(Context *c) {
    if (!c) { if (depth) depth--; return OK; }
    if (depth) depth--;
    return cuCtxPushCurrent_v2(c);
}
API CUresult cuCtxGetCurrent(Context **c) { *c = current(); return OK; }
API CUresult cuCtxGetDevice(CUdevice *d) { if (!current()) return INVALID_CONTEXT; *d = 0; return OK; }
API CUresult cuCtxGetFlags(unsigned *flags) { *flags = current() ? current()->flags : 0; return OK; }
API CUresult cuCtxGetApiVersion(Context *c, unsigned *version) { *version = 3020; return OK; }
API CUresult cuDevicePrimaryCtxRetain(Context **c, CUdevice d) {
    configure();
    if (d >= device.devices) return INVALID_DEVICE;
    __sync_add_and_fetch(&primary_references, 1);
    *c = &primary;
    return OK;
}
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d) {
    if (primary_references <= 0) return INVALID_CONTEXT;
    __sync_sub_and_fetch(&primary_references, 1);
    return OK;
}
API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice d, unsigned flags) { primary.flags = flags; return OK; }
API CUresult cuDevicePrimaryCtxGetState(CUdevice d, unsigned *flags, int *active) {
    *flags = primary.flags;
    *active = primary_references > 0;
    return OK;
}

/* ------------------------------------------------------------------------------------------------ memory */
typedef struct { char *at; size_t bytes; int on_device; } Block;
static Block *blocks;
static size_t block_count, block_room, device_bytes, host_bytes;

static CUresult block_new(void **out, size_t bytes, int on_device) {
    CUresult result = OUT_OF_MEMORY;
    *out = NULL;
    NEED_CONTEXT;
    if (!bytes) return INVALID_VALUE;
    pthread_mutex_lock(&mutex);
    if (!on_device || device_bytes + bytes <= device.memory) {
        if (block_count == block_room) {
            block_room = block_room ? 2 * block_room : 64;
            blocks = realloc(blocks, block_room * sizeof *blocks);
        }
        Block b = { NULL, bytes, on_device };
        if (!posix_memalign((void **)&b.at, 512, bytes)) {
            memset(b.at, 0xcd, bytes < 1 << 16 ? bytes : 1 << 16);      /* fresh device memory is not zero */
            blocks[block_count++] = b;
            *(on_device ? &device_bytes : &host_bytes) += bytes;
            *out = b.at;
            result = OK;
        }
    }
    pthread_mutex_unlock(&mutex);
    return result;
}
static CUresult block_free(void *at) {
    CUresult result = INVALID_VALUE;
    pthread_mutex_lock(&mutex);
    for (size_t i = block_count; i-- > 0;)
        if (blocks[i].at == at) {
            *(blocks[i].on_device ? &device_bytes : &host_bytes) -= blocks[i].bytes;
            free(at);
            blocks[i] = blocks[--block_count];
            result = OK;
            break;
        }
    pthread_mutex_unlock(&mutex);
    return result;
}
API CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
    void *at;
    CUresult result = block_new(&at, bytes, 1);
    *out = (CUdeviceptr)(uintptr_t)at;
    return result;
}
API CUresult cuMemAllocManaged(CUdeviceptr *out, size_t bytes, unsigned flags) { return cuMemAlloc_v2(out, bytes); }
API CUresult cuMemFree_v2(CUdeviceptr at) { NEED_CONTEXT; return block_free(pointer(at)); }
API CUresult cuMemAllocHost_v2(void **out, size_t bytes) { return block_new(out, bytes, 0); }
API CUresult cuMemHostAlloc(void **out, size_t bytes, unsigned flags) { return block_new(out, bytes, 0); }
API CUresult cuMemFreeHost(void *at) { NEED_CONTEXT; return block_free(at); }
API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *at, unsigned flags) { *out = (CUdeviceptr)(uintptr_t)at; return OK; }
API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    NEED_CONTEXT;
    *total = device.memory;
    *free_bytes = device.memory - device_bytes;
    return OK;
}

/* ------------------------------------------------------------------------- streams: queues of deferred work */
typedef void (*HostFunction)(void *);
typedef struct Event { unsigned magic; int recorded; double ms; } Event;
typedef struct Work { void *to; const void *from; size_t bytes; HostFunction call; void *argument; Event *event; struct Work *next; } Work;
typedef struct Stream { unsigned magic; Work *first, *last; } Stream;
static Stream default_stream = { 0x57EA, NULL, NULL };
static long copies;

static Stream *stream_of(Stream *s) { return (uintptr_t)s <= 2 ? &default_stream : s; }
static double clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec * 1e-6;
}
static CUresult enqueue(Stream *s, Work work) {
    NEED_CONTEXT;
    s = stream_of(s);
    if (s->magic != 0x57EA) return INVALID_HANDLE;
    Work *w = malloc(sizeof *w);
    *w = work;
    w->next = NULL;
    if (s->last) s->last->next = w; else s->first = w;
    s->last = w;
    return OK;
}
static void move(void *to, const void *from, size_t bytes) {
    long n = __sync_add_and_fetch(&copies, 1);
    if (device.lose_after && n >= device.lose_after) lost = 1;
    if (!lost) memmove(to, from, bytes);
}
static CUresult drain(Stream *s) {
    s = stream_of(s);
    if (s->magic != 0x57EA) return INVALID_HANDLE;
    while (s->first) {
        Work *w = s->first;
        s->first = w->next;
        if (!s->first) s->last = NULL;
        if (w->to) move(w->to, w->from, w->bytes);
        if (w->call && !lost) w->call(w->argument);
        if (w->event) { w->event->ms = clock_ms(); w->event->recorded = 1; }
        free(w);
    }
    return lost ? LAUNCH_FAILED : OK;
}
static CUresult copy(void *to, const void *from, size_t bytes, Stream *s, int wait) {
    Work work = { to, from, bytes };
    NEED_CONTEXT;
    if (!to || !from) return INVALID_VALUE;
    if (!wait) return enqueue(s, work);
    move(to, from, bytes);
    return lost ? LAUNCH_FAILED : OK;
}
API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t n) { return copy(pointer(to), from, n, NULL, 1); }
API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t n) { return copy(to, pointer(from), n, NULL, 1); }
API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n) { return copy(pointer(to), pointer(from), n, NULL, 1); }
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t n, Stream *s) { return copy(pointer(to), from, n, s, 0); }
API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t n, Stream *s) { return copy(to, pointer(from), n, s, 0); }
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, Stream *s) { return copy(pointer(to), pointer(from), n, s, 0); }
API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t n) { NEED_CONTEXT; memset(pointer(to), value, n); return OK; }

static long live_streams, live_events;
API CUresult cuStreamCreate(Stream **out, unsigned flags) {
    NEED_CONTEXT;
    *out = calloc(1, sizeof **out);
    (*out)->magic = 0x57EA;
    __sync_add_and_fetch(&live_streams, 1);
    return OK;
}
API CUresult cuStreamCreateWithPriority(Stream **out, unsigned flags, int priority) { return cuStreamCreate(out, flags); }
API CUresult cuStreamDestroy_v2(Stream *s) {
    drain(s);
    if (stream_of(s) != &default_stream) {
        s->magic = 0;
        free(s);
        __sync_sub_and_fetch(&live_streams, 1);
    }
    return OK;
}
API CUresult cuStreamSynchronize(Stream *s) { NEED_CONTEXT; return drain(s); }
API CUresult cuStreamQuery(Stream *s) { NEED_CONTEXT; return stream_of(s)->first ? 600 : OK; }
API CUresult cuCtxSynchronize(void) { NEED_CONTEXT; return drain(NULL); }
/* The TensorRT double puts its computation into the stream with this call. */
API CUresult cuLaunchHostFunc(Stream *s, HostFunction call, void *argument) {
    Work work = { NULL, NULL, 0, call, argument };
    return enqueue(s, work);
}
API CUresult cuEventCreate(Event **out, unsigned flags) {
    NEED_CONTEXT;
    *out = calloc(1, sizeof **out);
    (*out)->magic = 0xE7E7;
    __sync_add_and_fetch(&live_events, 1);
    return OK;
}
API CUresult cuEventDestroy_v2(Event *e) {
    if (!e || e->magic != 0xE7E7) return INVALID_HANDLE;
    e->magic = 0;
    free(e);
    __sync_sub_and_fetch(&live_events, 1);
    return OK;
}
API CUresult cuEventRecord(Event *e, Stream *s) {
    Work work = { NULL, NULL, 0, NULL, NULL, e };
    if (!e || e->magic != 0xE7E7) return INVALID_HANDLE;
    return enqueue(s, work);
}
API CUresult cuEventSynchronize(Event *e) { return e->recorded ? OK : INVALID_HANDLE; }
API CUresult cuEventQuery(Event *e) { return e->recorded ? OK : 600; }
API CUresult cuEventElapsedTime(float *ms, Event *from, Event *to) {
    if (!from->recorded || !to->recorded) return INVALID_HANDLE;
    *ms = (float)(to->ms - from->ms);
    return OK;
}

/* ------------------------------------------------------------------------------------------- words, lookup */
static const struct { int code; const char *name, *words; } errors[] = {
    { 0, "CUDA_SUCCESS", "no error" }, { 1, "CUDA_ERROR_INVALID_VALUE", "invalid argument" },
    { 2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory" }, { 100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected" },
    { 101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal" }, { 201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context" },
    { 400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle" }, { 500, "CUDA_ERROR_NOT_FOUND", "named symbol not found" },
    { 600, "CUDA_ERROR_NOT_READY", "device not ready" }, { 719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure" },
    { 801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported" } };
API CUresult cuGetErrorName(CUresult code, const char **out) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) { *out = errors[i].name; return OK; }
    return INVALID_VALUE;
}
API CUresult cuGetErrorString(CUresult code, const char **out) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) { *out = errors[i].words; return OK; }
    return INVALID_VALUE;
}
API CUresult cuGetExportTable(const void **table, const CUuuid *id) { *table = NULL; return INVALID_VALUE; }
API CUresult cuGetProcAddress(const char *name, void **out, int version, uint64_t flags) {
    char versioned[160];
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *out = dlsym(RTLD_DEFAULT, versioned);
    if (!*out) *out = dlsym(RTLD_DEFAULT, name);
    return *out ? OK : NOT_FOUND;
}

/* For the tests' leak checks, no part of CUDA: live blocks, device bytes, host bytes, streams, events,
 * references to the primary context, copies so far. */
API void fakecuda_stats(unsigned long *out) {
    out[0] = block_count;
    out[1] = device_bytes;
    out[2] = host_bytes;
    out[3] = live_streams;
    out[4] = live_events;
    out[5] = primary_references;
    out[6] = copies;
}
#ifdef STUBS
#include STUBS
#endif
