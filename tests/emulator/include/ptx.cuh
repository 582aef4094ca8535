// The doubles of kernels/ptx.cuh: the same functions with the same meaning, written from the PTX manual's tables.
#pragma once

struct bf16 {
    unsigned short bits;
};

inline float to_float(bf16 x) {
    return __uint_as_float((unsigned)x.bits << 16);
}

inline bf16 to_bf16(float x) {
    unsigned u = __float_as_uint(x);
    if (x != x) return {0x7fff};
    return {(unsigned short)((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}

inline unsigned pack_bf16(float low, float high) {
    return to_bf16(low).bits | (unsigned)to_bf16(high).bits << 16;
}

inline float exp2_approx(float x) {
    float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}

inline unsigned char* dynamic_shared() {
    return emulator::machine.dynamic;
}

// The copy is done when it is waited for and no earlier; until then its place holds NaN.
inline void cp_async_16(void* shared, const void* global, bool valid = true) {
    emulator::check_aligned(shared, 16, "cp.async");
    if (valid) emulator::check_aligned(global, 16, "cp.async");
    memset(shared, 0xff, 16);
    auto& groups = emulator::self().groups;
    if (groups.empty()) groups.emplace_back();
    groups.back().push_back({shared, global, valid});
}

inline void cp_async_commit() {
    auto& groups = emulator::self().groups;
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}

template <int N>
inline void cp_async_wait() {
    auto& groups = emulator::self().groups;
    while ((int)groups.size() > N + 1) {  // the last one is open
        for (auto& copy : groups.front()) {
            if (copy.valid)
                memcpy(copy.to, copy.from, 16);
            else
                memset(copy.to, 0, 16);
        }
        groups.erase(groups.begin());
    }
}

namespace emulator {
struct Words { unsigned r[4]; };

inline Words ldmatrix(const void* row, bool transposed, Place at) {
    check_aligned(row, 16, "ldmatrix");
    auto gather = [transposed](Warp& w) {
        for (int lane = 0; lane < 32; lane++)
            for (int j = 0; j < 4; j++) {
                unsigned short pair[2];
                for (int k = 0; k < 2; k++) {
                    int i = lane / 4, column = 2 * (lane % 4) + k;
                    if (transposed) std::swap(i, column);
                    const unsigned short* from;
                    memcpy(&from, w.slot[8 * j + i], sizeof from);
                    pair[k] = from[column];
                }
                memcpy(w.result[lane] + 4 * j, pair, 4);
            }
    };
    return warp_operation<const void*, Words>(row, gather, at);
}

struct Operands { unsigned a[4], b[2]; float d[4]; };
struct Sums { float d[4]; };

inline Sums mma(const Operands& own, Place at) {
    return warp_operation<Operands, Sums>(own, [](Warp& w) {
        typedef float Half __attribute__((vector_size(16), may_alias));
        static float a[16][16];
        alignas(16) static float b[16][8], d[16][8];
        for (int lane = 0; lane < 32; lane++) {
            Operands o;
            memcpy(&o, w.slot[lane], sizeof o);
            int g = lane / 4, q = 2 * (lane % 4);
            for (int k = 0; k < 2; k++) {
                auto half = [k](unsigned x) { return __uint_as_float(k ? x & 0xffff0000u : x << 16); };
                a[g][q + k] = half(o.a[0]), a[g + 8][q + k] = half(o.a[1]);
                a[g][q + 8 + k] = half(o.a[2]), a[g + 8][q + 8 + k] = half(o.a[3]);
                b[q + k][g] = half(o.b[0]), b[q + 8 + k][g] = half(o.b[1]);
                d[g][q + k] = o.d[k], d[g + 8][q + k] = o.d[2 + k];
            }
        }
        for (int i = 0; i < 16; i++) {
            Half left{}, right{};  // of the eight columns
            for (int k = 0; k < 16; k++) left += a[i][k] * *(Half*)b[k], right += a[i][k] * *(Half*)(b[k] + 4);
            *(Half*)d[i] += left, *(Half*)(d[i] + 4) += right;
        }
        for (int lane = 0; lane < 32; lane++) {
            int g = lane / 4, q = 2 * (lane % 4);
            Sums s{{d[g][q], d[g][q + 1], d[g + 8][q], d[g + 8][q + 1]}};
            memcpy(w.result[lane], &s, sizeof s);
        }
    }, at);
}
}  // namespace emulator

inline void ldmatrix_x4(unsigned (&r)[4], const void* row, emulator::Place at = {__builtin_LINE(), __builtin_FILE()}) {
    auto words = emulator::ldmatrix(row, false, at);
    memcpy(r, words.r, sizeof r);
}

inline void ldmatrix_x4_transposed(unsigned (&r)[4], const void* row, emulator::Place at = {__builtin_LINE(), __builtin_FILE()}) {
    auto words = emulator::ldmatrix(row, true, at);
    memcpy(r, words.r, sizeof r);
}

inline void mma_16816(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], emulator::Place at = {__builtin_LINE(), __builtin_FILE()}) {
    emulator::Operands own;
    memcpy(own.a, a, sizeof own.a), memcpy(own.b, b, sizeof own.b), memcpy(own.d, d, sizeof own.d);
    auto sums = emulator::mma(own, at);
    memcpy(d, sums.d, sizeof sums.d);
}
