// Random numbers, pure functions of a sequence: those of the samples first .. first + samples - 1, or of the numbers given.
//
//   normal      y[n, e] ~ N(0, 1)                     uniform     y[n, e] uniform on (0, 1)
//   integers    y[n] on low .. low + range - 1        bernoulli   y[n] = 1 where the word of n is below `threshold`, else 0
//   categorical y[n] = how many of the K cumulative probabilities, which do not decrease, the uniform number of n reaches
//   antithetic  y[n] = (u + place of n / total) mod 1, u one uniform number for the whole step, in float64
//   antithetic_steps  y[n] = 1 + floor(T times that)
//   advance     counter += 1
//
// The numbers of refdiff/random.py: Philox [Philox], Box and Muller [BoxMuller] in float64. Step and first sample may lie
// in device memory, so that a captured step draws anew. A thread takes four elements of one sample, the words of one
// counter. Bytes an element: 4. Operations: 10 integer ones an element for Philox, for two normal numbers a logarithm, a
// root, a sine and a cosine in float64. Floor: bytes over the copy bandwidth, or operations over the float64 rate.
#include <philox.cuh>

// Sample n is number sample_ids[n] of the sequence, counted from its first; n where sample_ids is null.
__device__ __forceinline__ unsigned number_of(const int* sample_ids, int n) { return sample_ids ? sample_ids[n] : n; }

extern "C" __global__ void __launch_bounds__(256)
    normal(const int* sample_ids, float* y, int samples, int count, PARAM Sequence sequence) {
    Place at = place_of(samples, count);
    if (!at.inside) return;
    float z[4];
    normal4(key_of(sequence), at.e / 4, number_of(sample_ids, at.sample), z);
    put4(y + (size_t)at.sample * count + at.e, z, at);
}

extern "C" __global__ void __launch_bounds__(256)
    uniform(const int* sample_ids, float* y, int samples, int count, PARAM Sequence sequence) {
    Place at = place_of(samples, count);
    if (!at.inside) return;
    uint4 w = philox(key_of(sequence), at.e / 4, number_of(sample_ids, at.sample));
    float u[4] = {(float)unit(w.x), (float)unit(w.y), (float)unit(w.z), (float)unit(w.w)};
    put4(y + (size_t)at.sample * count + at.e, u, at);
}

extern "C" __global__ void __launch_bounds__(256)
    integers(const int* sample_ids, int* y, int samples, int low, unsigned long long range, PARAM Sequence sequence) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples) return;
    uint4 w = philox(key_of(sequence), 0, number_of(sample_ids, i));
    y[i] = (int)((unsigned)low + below(w.x, range));
}

extern "C" __global__ void __launch_bounds__(256)
    bernoulli(const int* sample_ids, int* y, int samples, unsigned long long threshold, PARAM Sequence sequence) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples) return;
    uint4 w = philox(key_of(sequence), 0, number_of(sample_ids, i));
    y[i] = w.x < threshold;
}

// K at least 1. Compared in float64, as everywhere.
extern "C" __global__ void __launch_bounds__(256)
    categorical(const int* sample_ids, int* y, int samples, const float* cumulative, int K, PARAM Sequence sequence) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples) return;
    double u = unit(philox(key_of(sequence), 0, number_of(sample_ids, i)).x);
    int low = 0, high = K - 1;  // the number lies between, both included
    while (low < high) {
        int middle = (low + high) / 2;
        if (cumulative[middle] <= u)
            low = middle + 1;
        else
            high = middle;
    }
    y[i] = low;
}

// (u + place / total) mod 1 of sample i of this part: u is that of sample 0 of the step.
__device__ __forceinline__ double antithetic_time(Sequence sequence, int i, int total) {
    Key key = key_of(sequence);
    unsigned place = key.first + i;
    key.first = 0;
    double t = unit(philox(key, 0, 0).x) + (double)place / total;
    return t - floor(t);
}

extern "C" __global__ void __launch_bounds__(256)
    antithetic(float* y, int samples, int total, PARAM Sequence sequence) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < samples) y[i] = (float)antithetic_time(sequence, i, total);
}

extern "C" __global__ void __launch_bounds__(256)
    antithetic_steps(int* y, int samples, int total, int T, PARAM Sequence sequence) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < samples) y[i] = 1 + min((int)floor(T * antithetic_time(sequence, i, total)), T - 1);
}

// The number of the step that a captured graph is at.
extern "C" __global__ void __launch_bounds__(32) advance(int* counter) {
    if (threadIdx.x == 0) ++*counter;
}
