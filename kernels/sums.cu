// Products of two arrays or with one number a sample, sums over a sample and over copies of it, and running sums.
//
//   multiply          y = a b                             da = dy b,  db = dy a
//   multiply_samples  y_n = b_n a_n, b one number a sample  da_n = b_n dy_n,  db_n = sum dy_n a_n
//   sample_sum        y_n = sum x_n                       spread_samples  dx_n = dy_n everywhere
//   repeat            y[n times + k] = x[n]               dx: sum_positions of positions.cu
//   cumulative_sum    y_k = x_0 + ... + x_k               dx_k = dy_k + ... + dy_{K-1}, the same kernel from the end
//
// A thread takes PACK neighbours (16 bytes) where they divide a sample, else one element; sums are float32. Where a sample
// is summed, `parts` blocks share it, and sample_means of per_sample.cu adds their sums; one part needs no second launch.
// cumulative_sum: one block, each thread a run of neighbours, then the threads' totals are scanned in shared memory.
//
// Bytes, n elements: multiply 3 n sizeof(Real), backward 5 n; multiply_samples 2 n, backward 3 n; sample_sum, spread_samples
// n; repeat n + n / times; cumulative_sum 4 K to 8 K. Floor: bytes over the copy bandwidth, or one launch.
#include <samples.cuh>

constexpr int N = PACK<Real>;
#ifdef BF16
typedef unsigned short Word;
#else
typedef unsigned Word;
#endif

extern "C" __global__ void __launch_bounds__(256) multiply(const Real* a, const Real* b, Real* y, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float v[N], w[N];
        load_pack(a + i, v);
        load_pack(b + i, w);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] *= w[j];
        store_pack(y + i, v);
    } else {
        for (; i < n; i++) store(y + i, load(a + i) * load(b + i));
    }
}

extern "C" __global__ void __launch_bounds__(256)
    multiply_backward(const Real* dy, const Real* a, const Real* b, Real* da, Real* db, int n) {
    long long i = thread_index() * N;
    if (i + N <= n) {
        float d[N], v[N], w[N];
        load_pack(dy + i, d);
        load_pack(a + i, v);
        load_pack(b + i, w);
#pragma unroll
        for (int j = 0; j < N; j++) w[j] *= d[j], v[j] *= d[j];
        store_pack(da + i, w);
        store_pack(db + i, v);
    } else {
        for (; i < n; i++) {
            float d = load(dy + i);
            store(da + i, d * load(b + i));
            store(db + i, d * load(a + i));
        }
    }
}

// b (samples,).
extern "C" __global__ void __launch_bounds__(256)
    multiply_samples(const Real* a, const float* b, Real* y, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    float by = b[at.sample];
    a += at.first, y += at.first;
    if (at.width == N) {
        float v[N];
        load_pack(a, v);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] *= by;
        store_pack(y, v);
    } else {
        store(y, by * load(a));
    }
}

// grid: samples * parts blocks. db (samples,), or partial sums (samples, parts).
extern "C" __global__ void __launch_bounds__(256)
    multiply_samples_backward(const Real* dy, const Real* a, const float* b, Real* da, float* db, int count, int parts) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(parts);
    size_t first = (size_t)mine.sample * count;
    float by = b[mine.sample], sum = 0;
    dy += first, a += first, da += first;
    if (count % N == 0) {
        for (int i = mine.first; i < count / N; i += mine.stride) {
            float d[N], v[N], some = 0;
            load_pack(dy + (size_t)i * N, d);
            load_pack(a + (size_t)i * N, v);
#pragma unroll
            for (int j = 0; j < N; j++) some += d[j] * v[j], d[j] *= by;
            store_pack(da + (size_t)i * N, d);
            sum += some;
        }
    } else {
        for (int i = mine.first; i < count; i += mine.stride) {
            float d = load(dy + i);
            sum += d * load(a + i);
            store(da + i, by * d);
        }
    }
    put_sum(sum, db, scratch);
}

// grid: samples * parts blocks. y (samples,), or partial sums (samples, parts).
extern "C" __global__ void __launch_bounds__(256) sample_sum(const Real* x, float* y, int count, int parts) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(parts);
    float sum = 0;
    x += (size_t)mine.sample * count;
    if (count % N == 0) {
        for (int i = mine.first; i < count / N; i += mine.stride) {
            float v[N], some = 0;
            load_pack(x + (size_t)i * N, v);
#pragma unroll
            for (int j = 0; j < N; j++) some += v[j];
            sum += some;
        }
    } else {
        for (int i = mine.first; i < count; i += mine.stride) sum += load(x + i);
    }
    put_sum(sum, y, scratch);
}

// dy (samples,).
extern "C" __global__ void __launch_bounds__(256) spread_samples(const float* dy, Real* dx, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    float v[N];
#pragma unroll
    for (int j = 0; j < N; j++) v[j] = dy[at.sample];
    if (at.width == N)
        store_pack(dx + at.first, v);
    else
        store(dx + at.first, v[0]);
}

// Words of 4 bytes, with BF16 of 2, whatever they stand for. n: of y.
extern "C" __global__ void __launch_bounds__(256) repeat(const Word* x, Word* y, int times, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    x += (size_t)(at.sample / times) * count + at.first % count, y += at.first;
    if (at.width == N)
        *(uint4*)y = *(const uint4*)x;
    else
        *y = *x;
}

// x and y (K,). reverse: from the last to the first.
struct CumulativeSum {
    Values x;
    Results y;
    int K, reverse;
};

constexpr int SCAN = 256;  // threads; engines/cuda/sum_ops.py reads it

// One block.
extern "C" __global__ void __launch_bounds__(SCAN) cumulative_sum(PARAM CumulativeSum of) {
    __shared__ float total[2][SCAN];
    int K = of.K, each = (K + SCAN - 1) / SCAN, thread = threadIdx.x, first = thread * each, end = min(first + each, K);
    auto place = [&](int i) { return of.reverse ? K - 1 - i : i; };
    float sum = 0;
    for (int i = first; i < end; i++) sum += value_at(of.x, 0, place(i), K);
    total[0][thread] = sum;
    int from = 0;
    for (int by = 1; by < SCAN; by *= 2) {
        __syncthreads();
        total[1 - from][thread] = total[from][thread] + (thread >= by ? total[from][thread - by] : 0);
        from = 1 - from;
    }
    __syncthreads();
    sum = thread ? total[from][thread - 1] : 0;
    for (int i = first; i < end; i++) {
        sum += value_at(of.x, 0, place(i), K);
        put(of.y, place(i), sum);
    }
}
