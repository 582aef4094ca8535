// Adam with decoupled weight decay [AdamW] algorithm 2, clipping by the global norm [Pascanu] algorithm 1, the rate's
// schedule [SGDR] eq. 5 and the moving average of the weights: a whole step over all parameters, in three launches.
//
//   sum_squares    partial[block] = the block's part of sum g^2
//   step_scalars   norm = sqrt(sum g^2), s = min(1, max_norm / norm), the rate of this step, the corrections, d
//   copy_segments  the gradients into one flat buffer, before the other three
//   adamw          g <- s g,  m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,
//                  p <- p - rate (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + weight_decay p),
//                  ema <- d ema + (1 - d) p,  d = min(ema_decay, (1 + step) / (10 + step))
//
// The step's number lies in device memory, so one captured graph serves every step. A loss or a norm that is not finite
// stops everything: `bad` keeps that step's number, and from then on no step writes. Several networks share one `bad`:
// the scalars of all come before the first `adamw`, so none is written where another's gradient is not finite.
//
// All arrays are flat float32, a thread takes four neighbours. Blocks sum in a fixed order, the last sum is one
// block's. Bytes a parameter: p, m, v both ways and g, 28; ema 8; the bfloat16 copy of p, if there is one, 2; the
// norm 4. Floor: 42 bytes over the copy bandwidth. `adamw` writes in place.
#include <device.cuh>

extern "C" __global__ void __launch_bounds__(256) sum_squares(const float* g, float* partial, int n) {
    __shared__ float scratch[256 / WARP];
    float sum = 0;
    long long stride = (long long)gridDim.x * blockDim.x * 4;
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
#pragma unroll 4
    for (; i + 4 <= n; i += stride) {
        float4 v = *(const float4*)(g + i);
        sum += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
    }
    for (; i < n; i++) sum += g[i] * g[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// What changes from step to step. optimiser.py reads it by these names.
struct alignas(16) Scalars {
    float rate, scale, correct1, correct2;  // correct: 1 / (1 - beta^step)
    float d, rest, norm, unused;            // rest: 1 - d
};

// What they follow from.
struct StepSettings {
    double peak, max_norm, beta1, beta2, ema_decay;  // peak: the largest rate; max_norm: to clip to, 0 for none
    int warmup, steps, constant;                     // constant: no decay of the rate
};

// One block. losses: `terms` numbers that must be finite too, or null.
extern "C" __global__ void __launch_bounds__(256)
    step_scalars(const float* partial, int count, const float* losses, int terms, const int* step_at, Scalars* out,
                 int* bad, PARAM StepSettings with) {
    __shared__ float scratch[256 / WARP];
    float sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x) return;
    constexpr float LARGEST = 3.402823466e38f;
    int step = *step_at;
    double norm = sqrt((double)sum), rate = with.peak;
    if (step <= with.warmup)
        rate = with.peak * step / with.warmup;
    else if (!with.constant)
        rate = with.peak * 0.5 * (1 + cospi((double)(step - with.warmup) / (with.steps - with.warmup + 1)));
    double d = fmin(with.ema_decay, (1.0 + step) / (10.0 + step));
    bool finite = sum <= LARGEST;  // false for NaN
    for (int i = 0; losses && i < terms; i++) finite &= fabsf(losses[i]) <= LARGEST;
    if (!finite && !*bad) *bad = step;
    *out = {(float)rate,
            (float)(with.max_norm > 0 && with.max_norm < norm ? with.max_norm / norm : 1),
            (float)(1 / (1 - pow(with.beta1, (double)step))),
            (float)(1 / (1 - pow(with.beta2, (double)step))),
            (float)d,
            (float)(1 - d),
            (float)norm};
}

struct Coefficients {
    float beta1, rest1, beta2, rest2, epsilon, weight_decay;  // rest: 1 - beta
};

// (n,) each. weights: p in bfloat16, or null.
struct Parameters {
    float* p;
    const float* g;
    float *m, *v, *ema;
    bf16* weights;
    int n;
};

__device__ __forceinline__ void step_of(float& p, float g, float& m, float& v, float& ema, const Scalars& now,
                                        const Coefficients& with) {
    g *= now.scale;
    m = with.beta1 * m + with.rest1 * g;
    v = with.beta2 * v + with.rest2 * (g * g);
    p -= now.rate * (m * now.correct1 / (sqrtf(v * now.correct2) + with.epsilon) + with.weight_decay * p);
    ema = now.d * ema + now.rest * p;
}

extern "C" __global__ void __launch_bounds__(256)
    adamw(PARAM Parameters of, const Scalars* scalars, const int* bad, PARAM Coefficients with) {
    Scalars now = *scalars;
    float *p = of.p, *m = of.m, *v = of.v, *ema = of.ema;
    const float* g = of.g;
    bf16* weights = of.weights;
    int n = of.n;
    long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (*bad) return;
    if (i + 4 <= n) {
        float a[4], b[4], c[4], d[4], e[4];
        load_pack(p + i, a), load_pack(g + i, b), load_pack(m + i, c), load_pack(v + i, d), load_pack(ema + i, e);
#pragma unroll
        for (int j = 0; j < 4; j++) step_of(a[j], b[j], c[j], d[j], e[j], now, with);
        store_pack(p + i, a), store_pack(m + i, c), store_pack(v + i, d), store_pack(ema + i, e);
        if (weights) *(uint2*)(weights + i) = make_uint2(pack_bf16(a[0], a[1]), pack_bf16(a[2], a[3]));
    } else {
        for (; i < n; i++) {
            step_of(p[i], g[i], m[i], v[i], ema[i], now, with);
            if (weights) weights[i] = to_bf16(p[i]);
        }
    }
}

// Gradients lie where their operations left them; a block copies one segment of one of them into the flat buffer.
struct CopySegment {
    const float* from;
    float* to;
    long long count;
};

extern "C" __global__ void __launch_bounds__(256) copy_segments(const CopySegment* table) {
    CopySegment segment = table[blockIdx.x];
    int i = threadIdx.x * 4;
    for (; i + 4 <= segment.count; i += blockDim.x * 4) *(float4*)(segment.to + i) = *(const float4*)(segment.from + i);
    i = (int)segment.count / 4 * 4 + threadIdx.x;
    for (; i < segment.count; i += blockDim.x) segment.to[i] = segment.from[i];
}
