// What a .cu file takes for granted, in C++ for one CPU thread. Included before the file by the compiler (-include).
//
// A block's threads are fibres. A fibre runs until a barrier or a warp operation, then another goes on; which one, a seed
// decides. So a missing barrier shows as a wrong result for some seed, and each of these stops the kernel with a message:
// a barrier or warp operation that some threads do not reach or reach at another line, an access outside of an array (an
// unmapped page follows each, or comes before, see device.py), and, by the compiler's checks (see build.py), a misaligned
// vector, an index outside of an array of known size, a division by zero, an overflow of a signed integer. Shared memory
// begins as NaN in each block, local variables as -1.7e38 or -16843010.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include <csetjmp>
#include <csignal>
#include <sys/mman.h>

#define __global__
#define __grid_constant__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Found between these two symbols and poisoned before each block.
#define __shared__ static __attribute__((section("emulated_shared")))
#define __constant__ static

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

namespace emulator {

enum State { READY, AT_BARRIER, AT_WARP, DONE };

// A line of a kernel.
struct Place {
    int line;
    const char* file;
    Place(int line = __builtin_LINE(), const char* file = __builtin_FILE()) : line(line), file(file) {}
    bool operator==(const Place& o) const { return line == o.line && (file == o.file || !strcmp(file, o.file)); }
    const char* name() const { return strrchr(file, '/') ? strrchr(file, '/') + 1 : file; }
};

struct Copy { void* to; const void* from; bool valid; };

struct Fibre {
    void* stack_pointer;
    State state;
    int lane, warp;
    uint3 thread;
    Place at;                                 // where it waits
    std::vector<std::vector<Copy>> groups;    // cp.async under way: closed groups, then the open one
};

struct Warp {
    int lanes, arrived;
    alignas(16) unsigned char slot[32][64];   // what each lane gives to a warp operation
    unsigned char result[32][64];             // and gets
};

constexpr unsigned MOST = 1024;               // threads of a block

struct Machine {
    uint3 block;
    dim3 block_dim, grid_dim;
    Fibre* me = nullptr;                      // who runs
    std::vector<Fibre> fibres;
    std::vector<Warp> warps;
    std::vector<int> order;                   // of the warps, in which they go on after a barrier
    int threads;
    Fibre* ready[MOST];                       // those that are READY and not running; the last goes on next, so that a
    unsigned ready_count;                     // warp runs to the barrier while it is in the cache
    unsigned char* stacks = nullptr;
    size_t stack_count = 0;
    unsigned char* area = nullptr;            // pages around the dynamic shared memory
    size_t area_bytes = 0, shared = 0;
    unsigned char* dynamic = nullptr;         // the block's dynamic shared memory
    void* scheduler = nullptr;                // its stack pointer
    int waiting, done;
    Place barrier_at;
    unsigned long long random;
    char error[512];
    sigjmp_buf escape;
};

inline Machine machine;
constexpr size_t STACK = 256 << 10, PAGE = 4096;

// Saves the callee-saved registers on this stack, keeps its pointer in *from and goes on where `to` was saved.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");

template <class... A>
[[noreturn]] inline void fail(const char* format, A... a) {
    Machine& m = machine;
    int n = snprintf(m.error, sizeof m.error, format, a...);
    if (m.me && n < (int)sizeof m.error)
        snprintf(m.error + n, sizeof m.error - n, " (block %u,%u,%u, thread %u,%u,%u)", m.block.x, m.block.y, m.block.z,
                 m.me->thread.x, m.me->thread.y, m.me->thread.z);
    siglongjmp(m.escape, 1);
}

inline Fibre& self() { return *machine.me; }

inline unsigned next_random() {
    machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(machine.random >> 32);
}

inline void make_ready(Fibre& f) {
    f.state = READY;
    machine.ready[machine.ready_count++] = &f;
}

// Lanes in an order drawn by chance, but for `but`.
inline void make_ready(const Warp& w, Fibre* lanes, Fibre* but = nullptr) {
    unsigned r = next_random() % 32;
    for (unsigned i = 0; i < 32; i++)
        if ((int)(i ^ r) < w.lanes && &lanes[i ^ r] != but) make_ready(lanes[i ^ r]);
}

inline void make_all_ready() {
    Machine& m = machine;
    int* order = m.order.data();
    for (unsigned i = (unsigned)m.order.size() - 1; i > 0; i--) std::swap(order[i], order[next_random() % (i + 1)]);
    for (int w : m.order) make_ready(m.warps.data()[w], m.fibres.data() + 32 * w);
}

// The stack to go on with: of the next that is ready, or the scheduler's.
inline void* next_stack() {
    Machine& m = machine;
    m.me = m.ready_count ? m.ready[--m.ready_count] : nullptr;
    return m.me ? m.me->stack_pointer : m.scheduler;
}

inline void yield() {
    Fibre* own = machine.me;
    void* next = next_stack();
    if (machine.me != own) emulator_switch(&own->stack_pointer, next);
}

inline void barrier(Place at) {
    Machine& m = machine;
    Fibre& f = self();
    if (!m.waiting++) m.barrier_at = at;
    if (!(m.barrier_at == at))
        fail("a barrier at %s:%d while others wait at %s:%d", at.name(), at.line, m.barrier_at.name(), m.barrier_at.line);
    f.state = AT_BARRIER, f.at = at;
    if (m.waiting == m.threads) {
        m.waiting = 0;
        make_all_ready();
    }
    yield();
}

// Each lane gives `in`; the last to come runs all(slots) once, which fills the results; each lane takes its own.
template <class In, class Out, class F>
inline Out warp_operation(const In& in, F all, Place at) {
    static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64);
    Machine& m = machine;
    Fibre& f = self();
    Warp& w = m.warps.data()[f.warp];
    memcpy(w.slot[f.lane], &in, sizeof in);
    f.state = AT_WARP, f.at = at;
    if (++w.arrived == w.lanes) {
        if (w.lanes != 32) fail("a warp operation in a warp of %d threads", w.lanes);
        Fibre* lanes = m.fibres.data() + 32 * f.warp;
        for (int i = 0; i < 32; i++)
            if (!(lanes[i].at == at))
                fail("warp operations at %s:%d and %s:%d meet", at.name(), at.line, lanes[i].at.name(), lanes[i].at.line);
        w.arrived = 0;
        all(w);
        f.state = READY;
        make_ready(w, lanes, &f);
    } else {
        yield();
    }
    Out out;
    memcpy(&out, w.result[f.lane], sizeof out);
    return out;
}

template <class T>
inline T shuffle(T x, int source, unsigned mask, Place at) {
    if (mask != 0xffffffffu) fail("a shuffle of a part of the warp");
    struct Given { T x; int source; };
    return warp_operation<Given, T>(Given{x, source}, [](Warp& w) {
        for (int i = 0; i < 32; i++) {
            Given g, from;
            memcpy(&g, w.slot[i], sizeof g);
            memcpy(&from, w.slot[g.source & 31], sizeof from);
            memcpy(w.result[i], &from.x, sizeof(T));
        }
    }, at);
}

inline unsigned ballot(bool x, Place at) {
    return warp_operation<bool, unsigned>(x, [](Warp& w) {
        unsigned bits = 0;
        for (int i = 0; i < 32; i++) bits |= (unsigned)(w.slot[i][0] != 0) << i;
        for (int i = 0; i < 32; i++) memcpy(w.result[i], &bits, sizeof bits);
    }, at);
}

inline void check_aligned(const void* p, size_t n, const char* what) {
    if ((uintptr_t)p % n) fail("%s wants an address aligned to %d, got %p", what, (int)n, p);
}

[[noreturn]] inline void undefined(const char* what, const void* data) {
    struct { const char* file; unsigned line, column; } at;  // with which all that the compiler gives begins
    memcpy(&at, data, sizeof at);
    fail("%s at %s:%u", what, Place((int)at.line, at.file).name(), at.line);
}

}  // namespace emulator

// What the compiler's checks call (-fsanitize, see build.py).
#define CHECK(name, what, ...) \
    extern "C" [[noreturn]] void __ubsan_handle_##name##_abort(__VA_ARGS__) { emulator::undefined(what, data); }
CHECK(type_mismatch_v1, "a misaligned access", void* data, void*)
CHECK(out_of_bounds, "an index outside of an array", void* data, void*)
CHECK(shift_out_of_bounds, "a shift by too many bits", void* data, void*, void*)
CHECK(divrem_overflow, "a division by zero", void* data, void*, void*)
CHECK(add_overflow, "an overflow of a signed integer", void* data, void*, void*)
CHECK(sub_overflow, "an overflow of a signed integer", void* data, void*, void*)
CHECK(mul_overflow, "an overflow of a signed integer", void* data, void*, void*)
CHECK(negate_overflow, "an overflow of a signed integer", void* data, void*)
#undef CHECK

#define threadIdx (emulator::self().thread)
#define blockIdx (emulator::machine.block)
#define blockDim (emulator::machine.block_dim)
#define gridDim (emulator::machine.grid_dim)
constexpr int warpSize = 32;

#define __syncthreads() emulator::barrier(__LINE__)
#define __syncwarp(...) ((void)emulator::ballot(true, __LINE__))
#define __shfl_sync(mask, x, source) emulator::shuffle(x, source, mask, __LINE__)
#define __shfl_xor_sync(mask, x, other) emulator::shuffle(x, emulator::self().lane ^ (other), mask, __LINE__)
#define __shfl_down_sync(mask, x, by) \
    emulator::shuffle(x, emulator::self().lane + ((by) > 31 - emulator::self().lane ? 0 : (by)), mask, __LINE__)
#define __ballot_sync(mask, x) emulator::ballot(x, __LINE__)
#define __any_sync(mask, x) (emulator::ballot(x, __LINE__) != 0)
#define __all_sync(mask, x) (emulator::ballot(x, __LINE__) == 0xffffffffu)

inline void __threadfence() {}
inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline float sinpif(float x) { return (float)sin(3.14159265358979323846 * x); }
inline float cospif(float x) { return (float)cos(3.14159265358979323846 * x); }
inline double sinpi(double x) { return sin(3.14159265358979323846 * x); }
inline double cospi(double x) { return cos(3.14159265358979323846 * x); }
inline void sincospi(double x, double* s, double* c) { *s = sinpi(x), *c = cospi(x); }
template <class T> inline T __ldg(const T* p) { return *p; }
using std::max;
using std::min;
