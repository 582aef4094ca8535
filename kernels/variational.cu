// A term of the variational bound for a variance that is learned [IDDPM] eqs. 15 and 16, and its gradient by v.
//
//   d = (1 + v) half_gap, l = log_variance + d                       the log variance that v stands for
//   t > 1   KL = (e^-d - 1 + d + (m' - m)^2 e^(-log_variance - d)) / 2          [DDPM] eq. 5
//   t = 1   -log of the mass of N(m, e^l) on the bin of x_0                     [DDPM] eq. 13
//   loss_n = sum / (count log 2),   slope = half_gap / (count log 2) times the derivative by l,   dv = dloss_n slope
//
// Divergences are float32: d is never a difference, and means are subtracted before they are scaled. Log masses, of the
// few samples at t = 1, are float64, by the formulas of refdiff/process for tails and short intervals. `parts` blocks a
// sample, whose sums sample_means of per_sample.cu adds; one part needs no second launch. Bytes an element: forward
// 16 + sizeof(Real), backward 4 + sizeof(Real). Floor: bytes over the copy bandwidth.
#include <functions.cuh>

constexpr double LOG_ROOT_2PI = 0.9189385332046727, ROOT_2_PER_PI = 0.7978845608028654;
constexpr double PI = 3.141592653589793, ROOT_HALF = 0.7071067811865476;
constexpr double NODE[8] = {0.09501250983763744, 0.2816035507792589, 0.45801677765722737, 0.6178762444026438,
                            0.755404408355003,   0.8656312023878318, 0.9445750230732326,  0.9894009349916499};
constexpr double WEIGHT[8] = {0.18945061045506864, 0.18260341504492364, 0.16915651939500265, 0.1495959888165767,
                              0.12462897125553407, 0.0951585116824926,  0.062253523938647456, 0.027152459411754176};
// exp(-u^2) at u = (n + 1/2) / 2
constexpr double BELL[13] = {0.9394130628134758,    0.569782824730923,     0.2096113871510978,    0.04677062238395898,
                             0.006329715427485747,  0.0005195746821548384, 2.586810022265412e-05, 7.811489408304491e-07,
                             1.4307241918567688e-08, 1.5893910094516368e-10, 1.0709232382508077e-12, 4.37661850287085e-15,
                             1.0848552640429378e-17};

// The log of a set's mass under N(0, 1), and E[z^2] - 1 over the set.
struct Mass {
    double log, spread;
};

// exp(x^2) erfc(x), x >= 0, by the trapezoid rule on half-integers [Erfc].
__device__ __forceinline__ double scaled_tail(double x) {
    double sum = 0;
#pragma unroll 1
    for (int n = 0; n < 13; n++) sum += BELL[n] / ((n + 0.5) * (n + 0.5) / 4 + x * x);
    double e = x < 6 ? exp(-4 * PI * x) : 0;
    return (x < 6 ? 2 * exp(x * x) * e / (1 + e) : 0) + x / PI * sum;
}

// z > a.
__device__ __forceinline__ Mass tail(double a) {
    double p = fabs(a), e = scaled_tail(p * ROOT_HALF), half = -0.5 * p * p, rest = 0.5 * exp(half) * e;
    if (a >= 0) return {half + log(0.5 * e), a * (ROOT_2_PER_PI / e)};
    return {log1p(-rest), a * (exp(half - LOG_ROOT_2PI) / (1 - rest))};
}

// a < z < b about a middle of 0 or more, w = (b - a) / 2.
__device__ __forceinline__ Mass interval(double a, double b, double w) {
    double c = 0.5 * (a + b);
    if (w * (c + 0.5 * w) < 1) {  // short: Gauss and Legendre about the middle
        double total = 0, first = 0, second = 0;
#pragma unroll 1
        for (int n = 0; n < 16; n++) {
            double v = n < 8 ? NODE[n] : -NODE[n - 8], q = WEIGHT[n % 8] * exp(-(c + 0.5 * w * v) * w * v);
            total += q, first += q * v, second += q * (v * v);
        }
        first /= total, second /= total;
        return {log(w * total) - 0.5 * c * c - LOG_ROOT_2PI, c * c + 2 * c * w * first + w * w * second - 1};
    }
    double e_a = scaled_tail(fabs(a) * ROOT_HALF), e_b = scaled_tail(b * ROOT_HALF);
    if (a >= 0) {  // to the right of 0: in units of the tail beyond a
        double drop = exp(-2 * c * w), part = 1 - drop * e_b / e_a;
        return {-0.5 * a * a + log(0.5 * e_a) + log(part), ROOT_2_PER_PI / e_a / part * (a - b * drop)};
    }
    double far_a = exp(-0.5 * a * a), far_b = exp(-0.5 * b * b), outside = 0.5 * (far_a * e_a + far_b * e_b);
    return {log1p(-outside), exp(-LOG_ROOT_2PI) / (1 - outside) * (a * far_a - b * far_b)};
}

// Of the bin of x0 among `bins` levels, or with bins = 0 of the density at x0; N(mean, e^l).
__device__ __forceinline__ Mass decoder(double x0, double mean, double l, int bins) {
    double r = exp(-0.5 * l);
    if (bins == 0) {
        double z = (x0 - mean) * r;
        return {-0.5 * (z * z + l) - LOG_ROOT_2PI, z * z - 1};
    }
    double level = rint((x0 + 1) * (0.5 * (bins - 1))), h = 1.0 / (bins - 1);
    double low = ((2 * level - 1) * h - 1 - mean) * r, high = ((2 * level + 1) * h - 1 - mean) * r;
    if (level == 0) return tail(-high);
    if (level == bins - 1) return tail(low);
    return low + high < 0 ? interval(-high, -low, h * r) : interval(low, high, h * r);
}

// v, mean, x0, posterior_mean, slope (samples, count); log_variance, half_gap, first (samples,); out (samples,), or
// partial sums (samples, parts).
struct VariationalTerm {
    const Real* v;
    const float *mean, *x0, *posterior_mean, *log_variance, *half_gap, *first;
    float *slope, *out;
    int bins, count, parts;
    float scale;  // 1 / (count log 2)
};

// grid: samples * parts blocks.
extern "C" __global__ void __launch_bounds__(256, 2) variational_term(PARAM VariationalTerm of) {
    __shared__ float scratch[8];
    int count = of.count, parts = of.parts;
    int sample = blockIdx.x / parts, thread = blockIdx.x % parts * blockDim.x + threadIdx.x;
    float before = of.log_variance[sample], gap = of.half_gap[sample], r = expf(-0.5f * before), sum = 0;
    bool at_first = of.first[sample] != 0;
    for (int e = thread; e < count; e += parts * blockDim.x) {
        size_t i = (size_t)sample * count + e;
        float m = of.mean[i], term, by_l;
        if (at_first) {
            Mass mass = decoder(of.x0[i], m, before + (1 + (double)load(of.v + i)) * gap, of.bins);
            term = (float)-mass.log, by_l = (float)(-0.5 * mass.spread);
        } else {
            float d = (1 + load(of.v + i)) * gap, away = (of.posterior_mean[i] - m) * r, square = away * away * expf(-d);
            term = 0.5f * (exp_beyond_linear(-d) + square), by_l = -0.5f * (expm1f(-d) + square);
        }
        sum += term;
        of.slope[i] = by_l * gap * of.scale;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) of.out[blockIdx.x] = parts > 1 ? sum : of.scale * sum;
}

// dterm (samples,), or null where factor is what all have.
extern "C" __global__ void __launch_bounds__(256)
    variational_term_backward(const float* dterm, float factor, const float* slope, Real* dv, int count, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) store(dv + i, (dterm ? dterm[i / count] : factor) * slope[i]);
}
