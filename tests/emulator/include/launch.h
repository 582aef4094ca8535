// Runs a kernel: block after block, each thread of it a fibre. Included after the .cu file (see build.py).
#pragma once

extern "C" unsigned char __start_emulated_shared[] __attribute__((weak));
extern "C" unsigned char __stop_emulated_shared[] __attribute__((weak));
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t) __attribute__((weak));

namespace emulator {

inline void (*entry)(void**);
inline void** entry_arguments;

[[noreturn]] inline void fibre_main() {
    entry(entry_arguments);
    Fibre& f = self();
    for (auto& group : f.groups)
        if (!group.empty()) fail("a thread ends with cp.async under way");
    f.state = DONE, machine.done++;
    yield();
    abort();
}

// Calls a kernel with arguments whose addresses stand in a list.
template <class... A, size_t... I>
inline void call(void (*kernel)(A...), void** a, std::index_sequence<I...>) {
    kernel(*(A*)a[I]...);
}
template <class... A>
inline void call(void (*kernel)(A...), void** a) {
    call(kernel, a, std::index_sequence_for<A...>());
}
template <class... A>
inline int sizes(void (*)(A...), int* out) {
    int n = 0;
    ((out[n++] = (int)sizeof(A)), ...);
    return n;
}

inline void crashed(int signal, siginfo_t* info, void*) {
    if (signal == SIGFPE) fail("a division of integers that has no result");
    fail("access to %p, outside of every array", info->si_addr);
}

inline void run_block() {
    Machine& m = machine;
    int threads = m.threads;
    unsigned x = 0, y = 0, z = 0;
    Fibre* f = m.fibres.data();
    for (int i = 0; i < threads; i++, f++) {
        f->groups.clear(), f->at.line = 0;
        f->lane = i % 32, f->warp = i / 32, f->thread = {x, y, z};
        if (++x == m.block_dim.x) x = 0, y++;
        if (y == m.block_dim.y) y = 0, z++;
        // Not all at one distance from a page, or they would fight for the same lines of the cache.
        void** top = (void**)(m.stacks + (size_t)(i + 1) * STACK - 64 - i % 256 * 320);
        *--top = nullptr;                // so that fibre_main finds the stack as after a call
        *--top = (void*)fibre_main;      // what the first switch returns to
        for (int r = 0; r < 6; r++) *--top = nullptr;
        f->stack_pointer = top;
    }
    for (int w = 0; w < (int)m.warps.size(); w++) m.warps[w].lanes = std::min(32, threads - 32 * w), m.warps[w].arrived = 0;
    m.waiting = m.done = 0, m.ready_count = 0;
    make_all_ready();
    void* first = next_stack();
    emulator_switch(&m.scheduler, first);
    if (m.done == threads) return;
    for (Fibre& f : m.fibres)
        if (f.state != DONE) m.me = &f;
    Fibre& waits = *m.me;
    bool at_barrier = waits.state == AT_BARRIER;
    int missing = at_barrier ? threads - m.waiting : 32 - m.warps[waits.warp].arrived;
    fail("%s at %s:%d that %d of %d threads never reach", at_barrier ? "a barrier" : "a warp operation", waits.at.name(),
         waits.at.line, missing, at_barrier ? threads : 32);
}

// Every byte of shared memory is 0xff, past AddressSanitizer, which has its own bytes between the arrays.
inline void poison(unsigned char* begin, size_t n) {
    asm volatile("rep stosb" : "+D"(begin), "+c"(n) : "a"(0xff) : "memory");
}

// Dynamic shared memory that ends (even seeds) or begins (odd seeds) at an unmapped page.
inline void map_shared(size_t shared, bool front) {
    Machine& m = machine;
    size_t pages = (shared + PAGE - 1) / PAGE * PAGE;
    if (!m.area || m.area_bytes != pages) {
        if (m.area) munmap(m.area, m.area_bytes + 2 * PAGE);
        m.area = (unsigned char*)mmap(nullptr, pages + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(m.area, PAGE, PROT_NONE);
        mprotect(m.area + PAGE + pages, PAGE, PROT_NONE);
        m.area_bytes = pages;
    }
    m.shared = shared;
    m.dynamic = m.area + PAGE + (front ? 0 : (pages - shared) / 128 * 128);
}

inline void check_limits(dim3 grid, dim3 block, size_t shared, unsigned bound) {
    unsigned long long threads = (unsigned long long)block.x * block.y * block.z;
    if (!threads || threads > MOST || block.z > 64) fail("a block of %u x %u x %u threads", block.x, block.y, block.z);
    if (threads > bound) fail("a block of %d threads, __launch_bounds__ says %d", (int)threads, (int)bound);
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        fail("a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
    if (shared > 227 << 10) fail("%d bytes of shared memory, no GPU has more than 227 KiB a block", (int)shared);
}

inline void run_grid(unsigned long long seed, size_t threads) {
    Machine& m = machine;
    m.threads = (int)threads;
    m.order.resize(m.warps.size());
    for (size_t i = 0; i < m.order.size(); i++) m.order[i] = (int)i;
    unsigned long long x = m.grid_dim.x, y = m.grid_dim.y, blocks = x * y * m.grid_dim.z;
    for (unsigned long long i = 0; i < blocks; i++) {
        unsigned long long b = seed % 2 ? blocks - 1 - i : i;
        m.block = {(unsigned)(b % x), (unsigned)(b / x % y), (unsigned)(b / x / y)};
        poison(m.area + PAGE, m.area_bytes);
        if (__start_emulated_shared) poison(__start_emulated_shared, __stop_emulated_shared - __start_emulated_shared);
        run_block();
        for (unsigned char* p = m.area + PAGE; p < m.area + PAGE + m.area_bytes; p++)
            if (p == m.dynamic) p += m.shared - (m.shared > 0);
            else if (*p != 0xff) fail("a write outside of the dynamic shared memory");
    }
}

// 0, or 1 with the message in machine.error.
inline int launch(void (*kernel)(void**), dim3 grid, dim3 block, size_t shared, void** arguments, unsigned seed,
                  unsigned bound) {
    Machine& m = machine;
    m.error[0] = 0, m.me = nullptr, m.random = seed * 2654435761ull + 1;
    m.grid_dim = grid, m.block_dim = block;
    static unsigned char alternate[64 << 10];
    stack_t own{}, old_stack;
    own.ss_sp = alternate, own.ss_size = sizeof alternate;
    sigaltstack(&own, &old_stack);
    struct sigaction action{}, old[3];
    const int signals[3] = {SIGSEGV, SIGBUS, SIGFPE};
    action.sa_sigaction = crashed, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 3; i++) sigaction(signals[i], &action, &old[i]);
    int failed = sigsetjmp(m.escape, 1);
    if (!failed) {
        check_limits(grid, block, shared, bound);
        size_t threads = (size_t)block.x * block.y * block.z;
        m.fibres.resize(threads), m.warps.resize((threads + 31) / 32);
        if (m.stack_count < threads) {
            if (m.stacks && __asan_unpoison_memory_region)  // a fibre never returns: its last frame left marks
                __asan_unpoison_memory_region(m.stacks, m.stack_count * STACK);
            if (m.stacks) munmap(m.stacks, m.stack_count * STACK);
            m.stacks = (unsigned char*)mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            m.stack_count = threads;
        }
        map_shared(shared, seed % 2);
        entry = kernel, entry_arguments = arguments;
        run_grid(seed, threads);
    }
    m.me = nullptr;
    if (failed && m.stacks && __asan_unpoison_memory_region) __asan_unpoison_memory_region(m.stacks, m.stack_count * STACK);
    for (int i = 0; i < 3; i++) sigaction(signals[i], &old[i], nullptr);
    sigaltstack(&old_stack, nullptr);
    return failed;
}

}  // namespace emulator

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int emulator_launch(void (*kernel)(void**), const unsigned* dims, size_t shared, void** arguments,
                           unsigned seed, unsigned bound) {
    return emulator::launch(kernel, {dims[0], dims[1], dims[2]}, {dims[3], dims[4], dims[5]}, shared, arguments, seed, bound);
}
EXPORT const char* emulator_error() {
    return emulator::machine.error;
}
