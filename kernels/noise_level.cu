// Noise at a level that is learned: gamma = -log SNR = log(sigma^2 / alpha^2), alpha^2 + sigma^2 = 1 [VDM] section 3.1.
//
//   diffuse                z = alpha x + sigma eps;  dgamma = alpha sigma / 2 sum dz (alpha eps - sigma x)
//   prior_kl               y = 1/2 (alpha^2 (sum x^2 - count) + count softplus(-gamma));
//                          dgamma = -dy alpha^2 / 2 (sigma^2 (sum x^2 - count) + count)
//   levels_log_likelihood  y = -sum log sum_k exp((u_o^2 - u_k^2) / 2),  u_k = (x - v_k) r + eps,  r = e^(-gamma/2), o: of x;
//                          dgamma = dy r / 2 sum (u_o (x - v_o) - sum_k p_k u_k (x - v_k)),  p the softmax
//   monotone               f(t) = (m(t) - m(0)) / S and f'(t),  S = m(1) - m(0),
//                          m(t) = |slope| t + 1/K sum_k |weight_k| s(|rate_k| t + shift_k)                [VDM] appendix H
//   fourier_features       y = [x, sin(2^e pi x) of each e, cos(2^e pi x) of each e] along the channels;
//                          dx = dy_0 + sum_e 2^e pi (cos dsin_e - sin dcos_e)
//   posterior_step         of beta = s(logit) after log alpha_bar: gamma and q(x_{t-1} | x_t, x_0) [DDPM] eqs. 6 and 7
//
// Everything is float32 but what comes from a network (dz) or goes into it (x and y of the features), which may be bfloat16
// by itself: there is one compilation. What is one number a sample and no sum is worked out in float64.
//
// levels: with j = k - o and h the distance of two levels, u_k = u_o - j h r, so exponents are products and no differences;
// the largest term is known beforehand, the sum goes over its neighbours that reach e^-40 of it, and log1p keeps a sum that
// is hardly more than that term. The derivative by gamma is summed with it: of the forward a number a sample is kept.
// monotone: s(b + d) - s(b) = s(b + d) s(-b) (1 - e^-d), which does not cancel, so f(0) = 0 and f(1) = 1 exactly, and a
// straight line is t, whose gradient is 0. A block a sample, each with m(1) by itself; backward a warp a unit, whose lanes
// take the samples in turn: no atomics.
//
// Where a sample is summed, `parts` blocks share it, and sample_means of per_sample.cu adds their sums (those of squares:
// prior_kl). Bytes an element: diffuse 12, backward 8 and dz; squares 4; levels 8, and an exponential for each level within
// reach; monotone 12 K a sample from the cache, 3 exponentials a unit; features of C channels and L exponents (2 + 2 L) sizes,
// backward the same. Floor: bytes over the copy bandwidth; levels: bins exponentials an element over their rate; or one launch.
#include <functions.cuh>
#include <samples.cuh>

constexpr int N = PACK<float>;

// x, eps, z (samples, count), gamma (samples,). A thread takes 16 bytes of one sample, or one element.
extern "C" __global__ void __launch_bounds__(256)
    diffuse(const float* x, const float* eps, const float* gamma, float* z, int count, int n) {
    Elements at = elements_of(count);
    if (at.first >= n) return;
    float g = gamma[at.sample], alpha = sqrtf(sigmoid_of(-g)), sigma = sqrtf(sigmoid_of(g));
    x += at.first, eps += at.first, z += at.first;
    if (at.width == N) {
        float v[N], w[N];
        load_pack(x, v);
        load_pack(eps, w);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] = alpha * v[j] + sigma * w[j];
        store_pack(z, v);
    } else {
        *z = alpha * *x + sigma * *eps;
    }
}

// out: dgamma (samples,), or its parts (samples, parts).
struct DiffuseBackward {
    Values dz;
    const float *x, *eps, *gamma;
    float* out;
    int count, parts;
};

// grid: samples * parts blocks.
extern "C" __global__ void __launch_bounds__(256) diffuse_backward(PARAM DiffuseBackward of) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float g = of.gamma[mine.sample], alpha = sqrtf(sigmoid_of(-g)), sigma = sqrtf(sigmoid_of(g)), sum = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        size_t i = (size_t)mine.sample * count + e;
        sum += value_at(of.dz, mine.sample, e, count) * (alpha * of.eps[i] - sigma * of.x[i]);
    }
    put_sum(0.5f * alpha * sigma * sum, of.out, scratch);
}

// Of a sample: the sums of x^2 of its parts. grid: samples * parts blocks.
extern "C" __global__ void __launch_bounds__(256) square_sums(const float* x, float* partial, int count, int parts) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(parts);
    float sum = 0;
    x += (size_t)mine.sample * count;
    for (int e = mine.first; e < count; e += mine.stride) sum += x[e] * x[e];
    put_sum(sum, partial, scratch);
}

// A thread a sample. slope: the derivative of y by gamma.
extern "C" __global__ void __launch_bounds__(256)
    prior_kl(const float* partial, const float* gamma, float* y, float* slope, int samples, int count, int parts) {
    int sample = (int)thread_index();
    if (sample >= samples) return;
    double square = 0, g = gamma[sample], alpha2 = sigmoid_of(-g);
    for (int i = 0; i < parts; i++) square += partial[(size_t)sample * parts + i];
    y[sample] = (float)(0.5 * (alpha2 * (square - count) + count * softplus_of(-g)));
    slope[sample] = (float)(-0.5 * alpha2 * (sigmoid_of(g) * (square - count) + count));
}

// dgamma = dy slope, a thread a sample. dy (samples,), or null where factor is what all have.
extern "C" __global__ void __launch_bounds__(256)
    times_slope(const float* dy, const float* slope, float* dgamma, float factor, int samples) {
    int sample = (int)thread_index();
    if (sample < samples) dgamma[sample] = (dy ? dy[sample] : factor) * slope[sample];
}

// x, eps (samples, count), gamma (samples,). y and its derivative by gamma (samples,), or their parts (samples, parts).
struct LevelsLogLikelihood {
    const float *x, *eps, *gamma;
    float *y, *slope;
    int bins, count, parts;
};

// grid: samples * parts blocks.
extern "C" __global__ void __launch_bounds__(256) levels_log_likelihood(PARAM LevelsLogLikelihood of) {
    __shared__ float scratch[2][256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count, last = of.bins - 1;
    double h = 2.0 / last;
    float r = expf(-0.5f * of.gamma[mine.sample]), step = (float)h * r, sum = 0, slope = 0;
    float reach = fminf(2 + sqrtf(2 * 40.0f) / step, of.bins);  // bins where step is 0
    for (int e = mine.first; e < count; e += mine.stride) {
        size_t i = (size_t)mine.sample * count + e;
        float x = of.x[i], own = fminf(fmaxf(rintf((x + 1) * (0.5f * last)), 0), last);
        float away = (float)(x - (own * h - 1)) * r, u = away + of.eps[i];  // u_o
        float best = fminf(fmaxf(rintf(u / step), -own), last - own);       // j of the largest term
        float at_best = u - best * step, twice = u + away, rest = 0, moment = 0;
        float from = fmaxf(best - reach, -own), to = fminf(best + reach, last - own);
        for (float j = rintf(from); j <= to; j++) {
            if (j == best) continue;
            float d = (j - best) * step, p = expf(d * (at_best - 0.5f * d));
            rest += p;
            moment += p * (j * step * (j * step - twice));
        }
        moment += best * step * (best * step - twice);
        sum += best * step * (u - 0.5f * best * step) + log1pf(rest);
        slope += moment / (1 + rest);
    }
    put_sum(-sum, of.y, scratch[0]);
    put_sum(-0.5f * slope, of.slope, scratch[1]);
}

// t (samples,), slope (1,), rate, shift, weight (K,). f, derivative f' (samples,), span S (1,).
struct Monotone {
    const float *t, *slope, *rate, *shift, *weight;
    float *f, *derivative, *span;
    int K;
};

// s(b + d) - s(b), d >= 0; above: s(b + d), beside: s(-b).
__device__ __forceinline__ float rise_of(float above, float beside, float d) {
    return above * beside * -expm1f(-d);
}

// A block a sample.
extern "C" __global__ void __launch_bounds__(256) monotone(PARAM Monotone of) {
    __shared__ float scratch[3][256 / WARP];
    float t = of.t[blockIdx.x], a = fabsf(of.slope[0]), each = 1.0f / max(of.K, 1), to_t = 0, to_1 = 0, inclines = 0;
    for (int k = threadIdx.x; k < of.K; k += blockDim.x) {
        float u = fabsf(of.rate[k]), b = of.shift[k], w = fabsf(of.weight[k]), beside = sigmoid_of(-b);
        float now = sigmoid_of(u * t + b);
        to_t += w * rise_of(now, beside, u * t);
        to_1 += w * rise_of(sigmoid_of(u + b), beside, u);
        inclines += w * u * (now * sigmoid_of(-(u * t + b)));
    }
    to_t = block_sum(to_t, scratch[0]), to_1 = block_sum(to_1, scratch[1]), inclines = block_sum(inclines, scratch[2]);
    if (threadIdx.x) return;
    float span = a + to_1 * each;
    of.f[blockIdx.x] = of.K ? (a * t + to_t * each) / span : t;
    of.derivative[blockIdx.x] = of.K ? (a + inclines * each) / span : 1;
    if (blockIdx.x == 0) of.span[0] = span;
}

// df, dderivative (samples,).
struct MonotoneBackward {
    const float *t, *slope, *rate, *shift, *weight, *f, *derivative, *span, *df, *dderivative;
    float *dslope, *drate, *dshift, *dweight;
    int samples, K;
};

// A warp a unit, and one for the slope.
extern "C" __global__ void __launch_bounds__(256) monotone_backward(PARAM MonotoneBackward of) {
    int unit = (int)thread_index() / WARP, lane = threadIdx.x % WARP, K = of.K;
    if (unit > K) return;  // a whole warp
    if (unit == K) {
        float sum = 0;
        for (int n = lane; n < of.samples; n += WARP)
            sum += of.df[n] * (of.t[n] - of.f[n]) + of.dderivative[n] * (1 - of.derivative[n]);
        sum = warp_sum(sum);
        if (lane == 0) of.dslope[0] = (of.slope[0] < 0 ? -sum : sum) / of.span[0];
        return;
    }
    float u = fabsf(of.rate[unit]), b = of.shift[unit], w = fabsf(of.weight[unit]), by_rate = 0, by_shift = 0, by_weight = 0;
    // At 0 and at 1: s, 1 - s, and what m and m' change by between them with each parameter.
    float at_0 = sigmoid_of(b), beside = sigmoid_of(-b), at_1 = sigmoid_of(u + b), beyond = sigmoid_of(-(u + b));
    float rise = rise_of(at_1, beside, u), rate_1 = at_1 * beyond, shift_1 = rise * (beyond - at_0);
    for (int n = lane; n < of.samples; n += WARP) {
        float t = of.t[n], f = of.f[n], f1 = of.derivative[n], df = of.df[n], df1 = of.dderivative[n];
        float s = sigmoid_of(u * t + b), rest = sigmoid_of(-(u * t + b)), s1 = s * rest, s2 = s1 * (rest - s);
        float risen = rise_of(s, beside, u * t);
        by_rate += df * (s1 * t - f * rate_1) + df1 * (s1 + s2 * u * t - f1 * rate_1);
        by_shift += df * (risen * (rest - at_0) - f * shift_1) + df1 * (u * s2 - f1 * shift_1);
        by_weight += df * (risen - f * rise) + df1 * (s1 * u - f1 * rise);
    }
    by_rate = warp_sum(by_rate), by_shift = warp_sum(by_shift), by_weight = warp_sum(by_weight);
    if (lane) return;
    float each = 1 / (K * of.span[0]);
    of.drate[unit] = (of.rate[unit] < 0 ? -w : w) * each * by_rate;
    of.dshift[unit] = w * each * by_shift;
    of.dweight[unit] = (of.weight[unit] < 0 ? -each : each) * by_weight;
}

constexpr int MAX_EXPONENTS = 16;  // engines/cuda/noise_level_ops.py reads it

// x (rows, C), y (rows, C (1 + 2 count)); n: elements of y.
struct FourierFeatures {
    Values x;
    Results y;
    int exponent[16];
    int count, C, n;
};

// A thread an element of y: what is written lies together, x comes from the cache.
extern "C" __global__ void __launch_bounds__(256) fourier_features(PARAM FourierFeatures of) {
    int i = (int)thread_index(), C = of.C, width = C * (1 + 2 * of.count);
    if (i >= of.n) return;
    int part = i % width / C - 1;
    float x = value_at(of.x, i / width, i % C, C);
    if (part >= of.count)
        x = cospif(ldexpf(x, of.exponent[part - of.count]));
    else if (part >= 0)
        x = sinpif(ldexpf(x, of.exponent[part]));
    put(of.y, i, x);
}

// n: elements of x.
struct FourierFeaturesBackward {
    Values x, dy;
    Results dx;
    int exponent[16];
    int count, C, n;
};

// A thread an element of x.
extern "C" __global__ void __launch_bounds__(256) fourier_features_backward(PARAM FourierFeaturesBackward of) {
    constexpr float PI = 3.14159265358979f;
    int i = (int)thread_index(), C = of.C, count = of.count, width = C * (1 + 2 * count), row = i / C, c = i % C;
    if (i >= of.n) return;
    float x = value_at(of.x, row, c, C), sum = value_at(of.dy, row, c, width);
    for (int part = 0; part < count; part++) {
        float v = ldexpf(x, of.exponent[part]), rate = ldexpf(PI, of.exponent[part]);
        float dsin = value_at(of.dy, row, (1 + part) * C + c, width);
        float dcos = value_at(of.dy, row, (1 + count + part) * C + c, width);
        sum += rate * (cospif(v) * dsin - sinpif(v) * dcos);
    }
    put(of.dx, i, sum);
}

// All (n,).
struct PosteriorStep {
    const float *log_alpha_bar, *logit;
    float *gamma, *c0, *ct, *log_variance, *root_alpha, *root_beta;
    int n;
};

// log(1 - e^x), x < 0.
__device__ __forceinline__ double log_one_minus_exp(double x) {
    return x > -0.6931471805599453 ? log(-expm1(x)) : log1p(-exp(x));
}

// Logarithms of a step: of alpha_bar before and after it, alpha, beta, and 1 - alpha_bar before and after.
struct StepLogs {
    double bar, bar_t, alpha, beta, noise, noise_t;
};
__device__ __forceinline__ StepLogs logs_of(double bar, double logit) {
    double alpha = -softplus_of(logit), beta = -softplus_of(-logit), bar_t = bar + alpha;
    return {bar, bar_t, alpha, beta, log_one_minus_exp(bar), log_one_minus_exp(bar_t)};
}

// A thread a sample.
extern "C" __global__ void __launch_bounds__(256) posterior_step(PARAM PosteriorStep of) {
    int i = (int)thread_index();
    if (i >= of.n) return;
    StepLogs logs = logs_of(of.log_alpha_bar[i], of.logit[i]);
    of.gamma[i] = (float)(logs.noise_t - logs.bar_t);
    of.c0[i] = (float)exp(0.5 * logs.bar + logs.beta - logs.noise_t);
    of.ct[i] = (float)exp(0.5 * logs.alpha + logs.noise - logs.noise_t);
    of.log_variance[i] = (float)(logs.beta + logs.noise - logs.noise_t);
    of.root_alpha[i] = (float)exp(0.5 * logs.alpha);
    of.root_beta[i] = (float)exp(0.5 * logs.beta);
}

struct PosteriorStepBackward {
    const float *log_alpha_bar, *logit, *dgamma, *dc0, *dct, *dlog_variance, *droot_alpha, *droot_beta;
    float *dlog_alpha_bar, *dlogit;
    int n;
};

// A thread a sample. With h(L) = log(1 - e^L), h'(L) = -1 / expm1(-L).
extern "C" __global__ void __launch_bounds__(256) posterior_step_backward(PARAM PosteriorStepBackward of) {
    int i = (int)thread_index();
    if (i >= of.n) return;
    double logit = of.logit[i], dl = of.dlog_variance[i], dgamma = of.dgamma[i];
    StepLogs logs = logs_of(of.log_alpha_bar[i], logit);
    double by_c0 = of.dc0[i] * exp(0.5 * logs.bar + logs.beta - logs.noise_t);
    double by_ct = of.dct[i] * exp(0.5 * logs.alpha + logs.noise - logs.noise_t);
    double dnoise = by_ct + dl, dnoise_t = dgamma - by_c0 - by_ct - dl;
    double dbar_t = -dnoise_t / expm1(-logs.bar_t) - dgamma;
    double dalpha = dbar_t + 0.5 * (by_ct + of.droot_alpha[i] * exp(0.5 * logs.alpha));
    double dbeta = by_c0 + dl + 0.5 * of.droot_beta[i] * exp(0.5 * logs.beta);
    of.dlog_alpha_bar[i] = (float)(dbar_t - dnoise / expm1(-logs.bar) + 0.5 * by_c0);
    of.dlogit[i] = (float)(dbeta * sigmoid_of(-logit) - dalpha * sigmoid_of(logit));
}
