// The sinusoidal timestep embedding [Attention] section 3.5, and its derivative by the time.
//
//   angle_i = t 10000^(-i / last)        y[sine + i] = sin(angle_i), y[cosine + i] = cos(angle_i)
//   dt = sum_i 10000^(-i / last) (cos(angle_i) dy[sine + i] - sin(angle_i) dy[cosine + i])
//
// Angles and sinusoids are made in float64. t is an integer in `steps`, or a float in `times`: the other is null. Forward:
// a thread an angle; backward: a warp a sample. Bytes: N channels sizeof(Real). Floor: one launch.
#include <device.cuh>

// t (n,): integers in `steps` or floats in `times`. last: half - 1 or half; sine, cosine: where each begins in a row.
struct TimeEmbedding {
    const int* steps;
    const float* times;
    int n, channels, last, sine, cosine;
};

// In half turns, whose sine needs no reduction by pi.
__device__ __forceinline__ double half_turns(const TimeEmbedding& of, int sample, double frequency) {
    constexpr double PER_PI = 0.3183098861837906715;
    return (of.steps ? (double)of.steps[sample] : (double)of.times[sample]) * frequency * PER_PI;
}
__device__ __forceinline__ double frequency_of(int i, int last) {
    constexpr double LOG_10000 = 9.210340371976182736;
    return exp(-LOG_10000 * i / last);
}

// y (n, channels).
extern "C" __global__ void __launch_bounds__(256) time_embedding(PARAM TimeEmbedding of, Real* y) {
    int channels = of.channels, half = channels / 2, place = blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= of.n * half) return;
    int sample = place / half, i = place % half;
    double s, c;
    sincospi(half_turns(of, sample, frequency_of(i, of.last)), &s, &c);
    y += (size_t)sample * channels;
    store(y + of.sine + i, (float)s);
    store(y + of.cosine + i, (float)c);
    if (channels % 2 && i == 0) store(y + channels - 1, 0);
}

// dy (n, channels) -> dt (n,), eight samples a block.
extern "C" __global__ void __launch_bounds__(256)
    time_embedding_backward(PARAM TimeEmbedding of, const Real* dy, float* dt) {
    int channels = of.channels, half = channels / 2, sample = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
    if (sample >= of.n) return;  // a whole warp
    float sum = 0;
    dy += (size_t)sample * channels;
    for (int i = lane; i < half; i += WARP) {
        double f = frequency_of(i, of.last), s, c;
        sincospi(half_turns(of, sample, f), &s, &c);
        sum += (float)(f * (c * load(dy + of.sine + i) - s * load(dy + of.cosine + i)));
    }
    sum = warp_sum(sum);
    if (lane == 0) dt[sample] = sum;
}
