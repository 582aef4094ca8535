// Runs a kernel: block after block, each thread of it a fibre. Included after the .cu file (see build.py).
#pragma once

extern "C" unsigned char __start_emulated_shared[] __attribute__((weak));
extern "C" unsigned char __stop_emulated_shared[] __attribute__((weak));

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

inline unsigned next_random() {
    machine.random = machine.random * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(machine.random >> 33);
}

inline void segfault(int, siginfo_t* info, void*) {
    fail("access to %p, outside of every array", info->si_addr);
}

inline void run_block(const std::vector<int>& first_order) {
    Machine& m = machine;
    int threads = (int)m.fibres.size();
    std::vector<int> order(first_order);
    for (int i = 0; i < threads; i++) {
        Fibre& f = m.fibres[i];
        f.state = READY, f.groups.clear(), f.line = 0;
        f.lane = i % 32, f.warp = i / 32;
        f.thread = {i % m.block_dim.x, i / m.block_dim.x % m.block_dim.y, i / m.block_dim.x / m.block_dim.y};
        void** top = (void**)(m.stacks + (size_t)(i + 1) * STACK - 64);
        *--top = nullptr;                // so that fibre_main finds the stack as after a call
        *--top = (void*)fibre_main;      // what the first switch returns to
        for (int r = 0; r < 6; r++) *--top = nullptr;
        f.stack_pointer = top;
    }
    for (int w = 0; w < (int)m.warps.size(); w++) m.warps[w].lanes = std::min(32, threads - 32 * w), m.warps[w].arrived = 0;
    m.waiting = m.done = 0;
    while (m.done < threads) {
        bool moved = false;
        for (int i : order) {
            if (m.fibres[i].state != READY) continue;
            moved = true, m.current = i;
            emulator_switch(&m.scheduler, m.fibres[i].stack_pointer);
            m.current = -1;
        }
        if (m.waiting == threads) {
            for (Fibre& f : m.fibres) f.state = READY;
            m.waiting = 0;
            for (int i = threads - 1; i > 0; i--) std::swap(order[i], order[next_random() % (i + 1)]);
        } else if (!moved) {
            for (Fibre& f : m.fibres)
                if (f.state == AT_BARRIER || f.state == AT_WARP) {
                    m.current = (int)(&f - m.fibres.data());
                    fail("%s at line %d that other threads never reach",
                         f.state == AT_BARRIER ? "a barrier" : "a warp operation", f.line);
                }
        }
    }
}

// 0, or 1 with the message in machine.error.
inline int launch(void (*kernel)(void**), dim3 grid, dim3 block, size_t shared, void** arguments, unsigned seed) {
    Machine& m = machine;
    size_t threads = (size_t)block.x * block.y * block.z;
    m.error[0] = 0, m.current = -1, m.random = seed * 2654435761ull + 1;
    m.grid_dim = grid, m.block_dim = block;
    m.fibres.resize(threads), m.warps.resize((threads + 31) / 32);
    if (m.stack_count < threads) {
        if (m.stacks) munmap(m.stacks, m.stack_count * STACK);
        m.stacks = (unsigned char*)mmap(nullptr, threads * STACK, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        m.stack_count = threads;
    }
    size_t pages = (shared + PAGE - 1) / PAGE * PAGE;
    unsigned char* area = (unsigned char*)mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(area + pages, PAGE, PROT_NONE);
    m.dynamic = area + (pages - shared) / 128 * 128;

    static unsigned char alternate[64 << 10];
    stack_t own{}, old_stack;
    own.ss_sp = alternate, own.ss_size = sizeof alternate;
    sigaltstack(&own, &old_stack);
    struct sigaction action{}, old_segv, old_bus;
    action.sa_sigaction = segfault, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_segv);
    sigaction(SIGBUS, &action, &old_bus);
    int failed = sigsetjmp(m.escape, 1);
    if (!failed) {
        entry = kernel, entry_arguments = arguments;
        std::vector<int> order(threads);
        for (size_t i = 0; i < threads; i++) order[i] = (int)i;
        unsigned long long blocks = (unsigned long long)grid.x * grid.y * grid.z;
        for (unsigned long long i = 0; i < blocks; i++) {
            unsigned long long b = seed % 2 ? blocks - 1 - i : i;
            m.block = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
            for (size_t j = threads - 1; j > 0; j--) std::swap(order[j], order[next_random() % (j + 1)]);
            memset(m.dynamic, 0xff, shared);
            if (__start_emulated_shared)
                memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
            run_block(order);
        }
    }
    m.current = -1;
    sigaction(SIGSEGV, &old_segv, nullptr);
    sigaction(SIGBUS, &old_bus, nullptr);
    sigaltstack(&old_stack, nullptr);
    munmap(area, pages + PAGE);
    return failed;
}

}  // namespace emulator

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int emulator_launch(void (*kernel)(void**), const unsigned* dims, size_t shared, void** arguments,
                               unsigned seed) {
    return emulator::launch(kernel, {dims[0], dims[1], dims[2]}, {dims[3], dims[4], dims[5]}, shared, arguments, seed);
}
EXPORT const char* emulator_error() {
    return emulator::machine.error;
}
