// One number a sample: the squared error of each, coefficients looked up by t, sums of two arrays, a choice of one.
//
//   sample_squares    loss_n = w_n sum (x_n - t_n)^2 / count       dx_n = dloss_n w_n 2 (x_n - t_n) / count
//   columns           y[k, n] = table[index_n, k], and with K = 1 a lookup in one row of numbers
//   affine            y_n = a_n u_n + b_n v_n, each product and the sum rounded by itself, as on the other engines
//   choose            y_n = a_n where condition_n is not 0, else b_n
//   less              y = 1 where a < b, else 0, element by element
//
// Samples lie one after another, `count` elements each; a thread takes PACK neighbours (16 bytes) where PACK divides
// count, else one. sample_squares: `parts` blocks a sample, whose sums sample_means adds in a fixed order; one part
// needs no second launch. Bytes an element: squares 2 sizeof(Real), their backward 3, affine and
// less 3, choose 2. Floor: bytes
// over the copy bandwidth, or one launch.
#include <samples.cuh>

constexpr int N = PACK<Real>;
#ifdef BF16
typedef unsigned short Word;
#else
typedef unsigned Word;
#endif

__device__ __forceinline__ float square(float x) {
    return x * x;
}

// grid: samples * parts blocks. weight (samples,) or null, scale: 1 / count. out (samples,), or partial sums (samples,
// parts).
extern "C" __global__ void __launch_bounds__(256)
    sample_squares(const Real* x, const Real* target, const float* weight, float* out, int count, int parts,
                   float scale) {
    __shared__ float scratch[8];
    int sample = blockIdx.x / parts, thread = blockIdx.x % parts * blockDim.x + threadIdx.x;
    int threads = parts * blockDim.x;
    float sum = 0;
    x += (size_t)sample * count, target += (size_t)sample * count;
    if (count % N == 0) {
        for (int i = thread; i < count / N; i += threads) {
            float v[N], t[N], some = 0;
            load_pack(x + (size_t)i * N, v);
            load_pack(target + (size_t)i * N, t);
#pragma unroll
            for (int j = 0; j < N; j++) some += square(v[j] - t[j]);
            sum += some;
        }
    } else {
        for (int i = thread; i < count; i += threads) sum += square(load(x + i) - load(target + i));
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = parts > 1 ? sum : scale * sum * (weight ? weight[sample] : 1);
}

// loss_n = w_n scale times the sum of the parts. A thread a sample.
extern "C" __global__ void __launch_bounds__(256)
    sample_means(const float* partial, const float* weight, float* loss, int samples, int parts, float scale) {
    int sample = blockIdx.x * blockDim.x + threadIdx.x;
    if (sample >= samples) return;
    float sum = 0;
    for (int i = 0; i < parts; i++) sum += partial[(size_t)sample * parts + i];
    loss[sample] = scale * sum * (weight ? weight[sample] : 1);
}

// dloss (samples,), or null where factor has it already; factor: 2 / count.
extern "C" __global__ void __launch_bounds__(256)
    sample_squares_backward(const float* dloss, const Real* x, const Real* target, const float* weight, Real* dx,
                            float factor, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    if (dloss) factor *= dloss[at.sample];
    if (weight) factor *= weight[at.sample];
    x += at.first, target += at.first, dx += at.first;
    if (at.width == N) {
        float v[N], t[N];
        load_pack(x, v);
        load_pack(target, t);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = factor * (v[j] - t[j]);
        store_pack(dx, v);
    } else {
        store(dx, factor * (load(x) - load(target)));
    }
}

// A thread a number. table (rows, K), index (n,) -> y (K, n).
extern "C" __global__ void __launch_bounds__(256)
    columns(const float* table, const int* index, float* y, int K, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < K * n) y[i] = table[(size_t)index[i % n] * K + i / n];
}

extern "C" __global__ void __launch_bounds__(256)
    affine(const float* a, const Real* u, const float* b, const Real* v, Real* y, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    float by_u = a[at.sample], by_v = b[at.sample];
    u += at.first, v += at.first, y += at.first;
    if (at.width == N) {
        float p[N], q[N];
        load_pack(u, p);
        load_pack(v, q);
#pragma unroll
        for (int j = 0; j < N; j++) p[j] = __fadd_rn(__fmul_rn(by_u, p[j]), __fmul_rn(by_v, q[j]));
        store_pack(y, p);
    } else {
        store(y, __fadd_rn(__fmul_rn(by_u, load(u)), __fmul_rn(by_v, load(v))));
    }
}

// Words of 4 bytes, with BF16 of 2, whatever they stand for. condition: integers or float32, 0 or 1. a: or null, where
// all its words are `fill`, of 2 bytes twice over.
extern "C" __global__ void __launch_bounds__(256)
    choose(const unsigned* condition, const Word* a, const Word* b, Word* y, unsigned fill, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    bool yes = condition[at.sample] != 0;
    const Word* from = (yes ? a : b) + (yes && !a ? 0 : at.first);
    y += at.first;
    if (at.width == N) {
        *(uint4*)y = yes && !a ? make_uint4(fill, fill, fill, fill) : *(const uint4*)from;
    } else {
        *y = yes && !a ? (Word)fill : *from;
    }
}

extern "C" __global__ void __launch_bounds__(256) less(const Real* a, const Real* b, Real* y, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float v[N], w[N];
        load_pack(a + i, v);
        load_pack(b + i, w);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = v[j] < w[j];
        store_pack(y + i, v);
    } else {
        for (; i < n; i++) store(y + i, load(a + i) < load(b + i));
    }
}
