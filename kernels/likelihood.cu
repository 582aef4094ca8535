// Logarithms of Gaussian and Bernoulli likelihoods, the divergence of two Gaussians, and what makes a bound of them
// differentiable [VAE]. One number a sample n, sums over its elements.
//
//   gaussian_log_likelihood   y = -1/2 sum (z^2 + l + log 2 pi),  z = (x - mean) e^(-l/2)
//                             dx = -dy z e^(-l/2),  dmean = dy z e^(-l/2),  dl = dy (z^2 - 1) / 2
//   gaussian_kl               y = 1/2 sum (e^d - 1 - d + z^2),  d = l - l_p,  z = (mean - mean_p) e^(-l_p/2)
//                             dmean = dy z e^(-l_p/2) = -dmean_p,  dl = dy (e^d - 1) / 2,  dl_p = -dy (e^d - 1 + z^2) / 2
//   reparameterise            z = mean + e^(l/2) eps;  dmean = dz, no kernel;  dl = dz e^(l/2) eps / 2
//   bernoulli_log_likelihood  y = -sum (x softplus(-l) + (1 - x) softplus(l));  dl = dy (x s(-l) - (1 - x) s(l))
//   log_mean_exp              y = m + log(1/K sum_k exp(x_k - m)), m = max x;  dx_k = dy exp(x_k - m) / sum   [IWAE] eq. 8
//
// No sum of logarithms is a difference of large numbers: e^d - 1 - d by its series, softplus by the sign of l. Every array
// may be float32 or bfloat16 by itself (data are float32 where a network says bfloat16), each gradient is of the type of
// what it is the gradient of, and arithmetic is float32, so there is one compilation. A log variance is an array or one
// number a sample, whose gradient is then a sum.
//
// A thread takes one element at a time. Where a sample is summed, `parts` blocks share it, and sample_means of
// per_sample.cu adds their sums; one part needs no second launch. log_mean_exp: a warp a sample. Nothing but the inputs is
// kept for the backward. Bytes an element, of s bytes each: log likelihood 3 s, backward 6 s; divergence 2 s or 4 s, backward
// 4 s or 8 s; reparameterise 4 s, backward 4 s; Bernoulli 2 s, backward 3 s; log_mean_exp s and 2 s. Floor: bytes over the
// copy bandwidth, or one launch.
#include <functions.cuh>
#include <samples.cuh>

constexpr float LOG_2PI = 1.8378770664093453f;

// x, mean, log_variance (samples, count), the last or (samples,). out (samples,), or partial sums (samples, parts).
struct GaussianLogLikelihood {
    Values x, mean, log_variance;
    float* out;
    int count, parts;
};

// grid: samples * parts blocks.
extern "C" __global__ void __launch_bounds__(256) gaussian_log_likelihood(PARAM GaussianLogLikelihood of) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float sum = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        float l = value_at(of.log_variance, mine.sample, e, count);
        float away = value_at(of.x, mine.sample, e, count) - value_at(of.mean, mine.sample, e, count);
        float z = away * expf(-0.5f * l);
        sum += z * z + (l + LOG_2PI);
    }
    put_sum(-0.5f * sum, of.out, scratch);
}

// dy (samples,), or null where factor is what all have. shared: of dlog where log_variance is one number a sample.
struct GaussianLogLikelihoodBackward {
    Values x, mean, log_variance;
    const float* dy;
    Results dx, dmean, dlog;
    float* shared;
    float factor;
    int count, parts;
};

extern "C" __global__ void __launch_bounds__(256)
    gaussian_log_likelihood_backward(PARAM GaussianLogLikelihoodBackward of) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float dy = of.dy ? of.dy[mine.sample] : of.factor, sum = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        size_t i = (size_t)mine.sample * count + e;
        float r = expf(-0.5f * value_at(of.log_variance, mine.sample, e, count));
        float z = (value_at(of.x, mine.sample, e, count) - value_at(of.mean, mine.sample, e, count)) * r;
        float dlog = 0.5f * dy * (z * z - 1);
        put(of.dx, i, -dy * z * r);
        put(of.dmean, i, dy * z * r);
        put(of.dlog, i, dlog);
        sum += dlog;
    }
    if (of.shared) put_sum(sum, of.shared, scratch);
}

// (samples, count), log variances or (samples,); mean_p and log_p may be absent, for N(0, 1). out as above.
struct GaussianKL {
    Values mean, log_variance, mean_p, log_p;
    float* out;
    int count, parts;
};

extern "C" __global__ void __launch_bounds__(256) gaussian_kl(PARAM GaussianKL of) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float sum = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        float log_p = value_at(of.log_p, mine.sample, e, count);
        float d = value_at(of.log_variance, mine.sample, e, count) - log_p;
        float away = value_at(of.mean, mine.sample, e, count) - value_at(of.mean_p, mine.sample, e, count);
        float z = away * expf(-0.5f * log_p);
        sum += exp_beyond_linear(d) + z * z;
    }
    put_sum(0.5f * sum, of.out, scratch);
}

struct GaussianKLBackward {
    Values mean, log_variance, mean_p, log_p;
    const float* dy;
    Results dmean, dlog, dmean_p, dlog_p;
    float *shared, *shared_p;
    float factor;
    int count, parts;
};

extern "C" __global__ void __launch_bounds__(256) gaussian_kl_backward(PARAM GaussianKLBackward of) {
    __shared__ float scratch[2][256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float dy = of.dy ? of.dy[mine.sample] : of.factor, sum = 0, sum_p = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        size_t i = (size_t)mine.sample * count + e;
        float log_p = value_at(of.log_p, mine.sample, e, count), r = expf(-0.5f * log_p);
        float grown = expm1f(value_at(of.log_variance, mine.sample, e, count) - log_p);
        float z = (value_at(of.mean, mine.sample, e, count) - value_at(of.mean_p, mine.sample, e, count)) * r;
        float dlog = 0.5f * dy * grown, dlog_p = -0.5f * dy * (grown + z * z);
        put(of.dmean, i, dy * z * r);
        put(of.dmean_p, i, -dy * z * r);
        put(of.dlog, i, dlog);
        put(of.dlog_p, i, dlog_p);
        sum += dlog, sum_p += dlog_p;
    }
    if (of.shared) put_sum(sum, of.shared, scratch[0]);
    if (of.shared_p) put_sum(sum_p, of.shared_p, scratch[1]);
}

// mean, eps, z (samples, count), log_variance that or (samples,); n: all elements.
struct Reparameterise {
    Values mean, log_variance, eps;
    Results z;
    int count, n;
};

// A thread an element.
extern "C" __global__ void __launch_bounds__(256) reparameterise(PARAM Reparameterise of) {
    int i = (int)thread_index(), count = of.count;
    if (i >= of.n) return;
    int sample = i / count, e = i % count;
    float spread = expf(0.5f * value_at(of.log_variance, sample, e, count)) * value_at(of.eps, sample, e, count);
    put(of.z, i, value_at(of.mean, sample, e, count) + spread);
}

struct ReparameteriseBackward {
    Values dz, log_variance, eps;
    Results dlog;
    float* shared;
    int count, parts;
};

// grid: samples * parts blocks.
extern "C" __global__ void __launch_bounds__(256) reparameterise_backward(PARAM ReparameteriseBackward of) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float sum = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        float spread = expf(0.5f * value_at(of.log_variance, mine.sample, e, count));
        float dlog = 0.5f * value_at(of.dz, mine.sample, e, count) * (spread * value_at(of.eps, mine.sample, e, count));
        put(of.dlog, (size_t)mine.sample * count + e, dlog);
        sum += dlog;
    }
    if (of.shared) put_sum(sum, of.shared, scratch);
}

// x from 0 to 1 and logits, (samples, count). out as above.
struct BernoulliLogLikelihood {
    Values x, logits;
    float* out;
    int count, parts;
};

extern "C" __global__ void __launch_bounds__(256) bernoulli_log_likelihood(PARAM BernoulliLogLikelihood of) {
    __shared__ float scratch[256 / WARP];
    Share mine = share_of(of.parts);
    int count = of.count;
    float sum = 0;
    for (int e = mine.first; e < count; e += mine.stride) {
        float x = value_at(of.x, mine.sample, e, count), l = value_at(of.logits, mine.sample, e, count);
        float of_sign = l > 0 ? (1 - x) * l : -x * l;  // what softplus has beyond log(1 + e^-|l|), which both have
        sum += of_sign + log1pf(expf(-fabsf(l)));
    }
    put_sum(-sum, of.out, scratch);
}

struct BernoulliLogLikelihoodBackward {
    Values x, logits;
    const float* dy;
    Results dlogits;
    float factor;
    int count, n;
};

// A thread an element.
extern "C" __global__ void __launch_bounds__(256)
    bernoulli_log_likelihood_backward(PARAM BernoulliLogLikelihoodBackward of) {
    int i = (int)thread_index(), count = of.count;
    if (i >= of.n) return;
    int sample = i / count, e = i % count;
    float x = value_at(of.x, sample, e, count), l = value_at(of.logits, sample, e, count);
    float dy = of.dy ? of.dy[sample] : of.factor;
    put(of.dlogits, i, dy * (x * sigmoid_of(-l) - (1 - x) * sigmoid_of(l)));
}

// x (rows, K) -> y (rows,), kept (rows,): m and 1 / sum.
struct LogMeanExp {
    Values x;
    float* y;
    float2* kept;
    int rows, K;
};

extern "C" __global__ void __launch_bounds__(256) log_mean_exp(PARAM LogMeanExp of) {
    int row = (int)thread_index() / WARP, lane = threadIdx.x % WARP, K = of.K;
    if (row >= of.rows) return;  // a whole warp
    float largest = value_at(of.x, row, 0, K), sum = 0;
    for (int k = lane; k < K; k += WARP) largest = fmaxf(largest, value_at(of.x, row, k, K));
    largest = warp_max(largest);
    for (int k = lane; k < K; k += WARP) sum += expf(value_at(of.x, row, k, K) - largest);
    sum = warp_sum(sum);
    if (lane) return;
    of.y[row] = logf(sum / K) + largest;
    of.kept[row] = make_float2(largest, 1 / sum);
}

// A thread an element; n: rows K.
struct LogMeanExpBackward {
    Values x;
    const float* dy;
    const float2* kept;
    Results dx;
    float factor;
    int K, n;
};

extern "C" __global__ void __launch_bounds__(256) log_mean_exp_backward(PARAM LogMeanExpBackward of) {
    int i = (int)thread_index(), K = of.K;
    if (i >= of.n) return;
    int row = i / K;
    float2 found = of.kept[row];
    float p = expf(value_at(of.x, row, i % K, K) - found.x) * found.y;
    put(of.dx, i, (of.dy ? of.dy[row] : of.factor) * p);
}
