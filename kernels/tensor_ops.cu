// Sums, multiples, joins, copies, casts and dropout.
//
//   add            y = a + b + c + d (c, d may be null)      backward: dy to each, no kernel
//   scale          y = factor x                              dx = factor dy, the same kernel
//   concat         y[r] = [a[r], b[r]]                       da, db = the parts of dy, dense
//   copy           y[r, c] = x[r, c], each with a pitch
//   dropout        y = m x / (1 - rate), m = [u > rate]      dx = m dy / (1 - rate), m drawn again
//
// A thread takes PACK neighbours (16 bytes) where widths, pitches and addresses allow it, else one element. Sums are
// float32.
//
// Bytes: add (count + 1) n, scale 2 n, concat and its backward 2 n, copy 2 n, dropout 2 n, times sizeof(Real); the cast to
// and from bfloat16 6 n. Operations: dropout 10 rounds of Philox for each 4 elements, each two wide products and two xors,
// so 10 integer instructions an element. Floor: bytes over the copy bandwidth; for dropout that or the operations over the
// integer rate, whichever is longer.
#include <philox.cuh>

constexpr int N = PACK<Real>;

__device__ __forceinline__ bool aligned(const void* p) {
    return (size_t)p % 16 == 0;
}

__device__ __forceinline__ float add_at(const Real* a, const Real* b, const Real* c, const Real* d, long long i) {
    float sum = load(a + i) + load(b + i);
    if (c) sum += load(c + i);
    if (d) sum += load(d + i);
    return sum;
}

extern "C" __global__ void __launch_bounds__(256)
    add(const Real* a, const Real* b, const Real* c, const Real* d, Real* y, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float sum[N], v[N];
        load_pack(a + i, sum);
        load_pack(b + i, v);
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += v[j];
        if (c) {
            load_pack(c + i, v);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += v[j];
        }
        if (d) {
            load_pack(d + i, v);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += v[j];
        }
        store_pack(y + i, sum);
    } else {
        for (; i < n; i++) store(y + i, add_at(a, b, c, d, i));
    }
}

extern "C" __global__ void __launch_bounds__(256) scale(const Real* x, Real* y, float factor, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float v[N];
        load_pack(x + i, v);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] *= factor;
        store_pack(y + i, v);
    } else {
        for (; i < n; i++) store(y + i, factor * load(x + i));
    }
}

template <int V>
__device__ __forceinline__ void copy_of(const Real* x, Real* y, int rows, int width, int x_pitch, int y_pitch) {
    long long i = thread_index() * V;
    if (i >= (long long)rows * width) return;
    int row = (int)i / width, c = (int)i % width;
    float v[V];
    load_pack(x + (size_t)row * x_pitch + c, v);
    store_pack(y + (size_t)row * y_pitch + c, v);
}

extern "C" __global__ void __launch_bounds__(256)
    copy(const Real* x, Real* y, int rows, int width, int x_pitch, int y_pitch) {
    if (width % N == 0 && x_pitch % N == 0 && y_pitch % N == 0 && aligned(x) && aligned(y))
        copy_of<N>(x, y, rows, width, x_pitch, y_pitch);
    else
        copy_of<1>(x, y, rows, width, x_pitch, y_pitch);
}

template <int V>
__device__ __forceinline__ void concat_of(const Real* a, const Real* b, Real* y, int A, int B, int n) {
    long long i = thread_index() * V;
    if (i >= n) return;
    int row = (int)i / (A + B), c = (int)i % (A + B);
    float v[V];
    load_pack(c < A ? a + (size_t)row * A + c : b + (size_t)row * B + (c - A), v);
    store_pack(y + i, v);
}

extern "C" __global__ void __launch_bounds__(256) concat(const Real* a, const Real* b, Real* y, int A, int B, int n) {
    if (A % N == 0 && B % N == 0)
        concat_of<N>(a, b, y, A, B, n);
    else
        concat_of<1>(a, b, y, A, B, n);
}

template <int V>
__device__ __forceinline__ void concat_backward_of(const Real* dy, Real* da, Real* db, int A, int B, int n) {
    long long i = thread_index() * V;
    if (i >= n) return;
    int row = (int)i / (A + B), c = (int)i % (A + B);
    float v[V];
    load_pack(dy + i, v);
    store_pack(c < A ? da + (size_t)row * A + c : db + (size_t)row * B + (c - A), v);
}

extern "C" __global__ void __launch_bounds__(256)
    concat_backward(const Real* dy, Real* da, Real* db, int A, int B, int n) {
    if (A % N == 0 && B % N == 0)
        concat_backward_of<N>(dy, da, db, A, B, n);
    else
        concat_backward_of<1>(dy, da, db, A, B, n);
}

extern "C" __global__ void __launch_bounds__(256) fill(Real* y, float value, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float v[N];
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = value;
        store_pack(y + i, v);
    } else {
        for (; i < n; i++) store(y + i, value);
    }
}

// From and to float32, whatever Real is.
extern "C" __global__ void __launch_bounds__(256) from_float32(const float* x, Real* y, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float v[N];
#pragma unroll
        for (int j = 0; j < N; j += 4) {
            float4 w = *(const float4*)(x + i + j);
            v[j] = w.x, v[j + 1] = w.y, v[j + 2] = w.z, v[j + 3] = w.w;
        }
        store_pack(y + i, v);
    } else {
        for (; i < n; i++) store(y + i, x[i]);
    }
}
extern "C" __global__ void __launch_bounds__(256) to_float32(const Real* x, float* y, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float v[N];
        load_pack(x + i, v);
#pragma unroll
        for (int j = 0; j < N; j += 4) *(float4*)(y + i + j) = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
    } else {
        for (; i < n; i++) y[i] = load(x + i);
    }
}

// sample: the elements of one. An element stays where its word reaches the threshold, 0 .. 2^32. A thread takes PACK
// elements of one sample.
extern "C" __global__ void __launch_bounds__(256)
    dropout(const Real* x, Real* y, int samples, int sample, unsigned long long threshold, float scale,
            PARAM Sequence sequence) {
    int packs = (sample + N - 1) / N;
    if (thread_index() >= (long long)samples * packs) return;
    int place = (int)thread_index(), index = place / packs, e = place % packs * N;
    Key key = key_of(sequence);
    float mask[N];
#pragma unroll
    for (int j = 0; j < N; j += 4) {
        uint4 w = philox(key, (e + j) / 4, index);
        mask[j] = w.x >= threshold ? scale : 0;
        mask[j + 1] = w.y >= threshold ? scale : 0;
        mask[j + 2] = w.z >= threshold ? scale : 0;
        mask[j + 3] = w.w >= threshold ? scale : 0;
    }
    size_t at = (size_t)index * sample + e;
    if (sample % N == 0) {
        float v[N];
        load_pack(x + at, v);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] *= mask[j];
        store_pack(y + at, v);
    } else {
#pragma unroll
        for (int j = 0; j < N; j++)
            if (e + j < sample) store(y + at + j, load(x + at + j) * mask[j]);
    }
}
