// One step of any sampler that asks the network once a step: ancestral, DDIM, Euler, Euler ancestral, DPM-Solver++(2M).
//
//   x0_hat = cx x + cy y, held within [-1, 1] if asked          y the network's output, a prediction of any kind
//   x      <- a x + b x0_hat + c x0_hat' + s z                  x0_hat' that of the step before, z ~ N(0, I)
//
// eps_hat is (x - a_t x0_hat) / s_t, before and after the clip, so it is a part of a and b. The coefficients are a
// table of one row a step; the row is the counter's, on the device, so one captured graph is every step. Past the last
// row nothing is written. z is drawn from (seed, the stream STEP, t of the row, the sample's number).
//
// A thread takes four elements of one sample and writes in place what it alone has read. Bytes an element: x 8, y
// sizeof(Real), the network's next input in bfloat16 2, x0_hat 8 where it is kept. Operations as in noise.cu where s is
// not 0. Floor: the bytes over the copy bandwidth.
#include <philox.cuh>

struct alignas(16) Row {
    float cx, cy, a, b, c, s, unused[2];
};

// input: x for the network in bfloat16, or null where it reads x itself. before: x0_hat of the last step, or null where
// no row has c. t (samples,): what the network is told, becomes that of the next row.
extern "C" __global__ void __launch_bounds__(256)
    sampler_step(float* x, Real* input, const Real* y, float* before, const Row* table, const int* timesteps, int rows,
                 const int* counter, int* t, const int* index, int samples, int count, int clip, unsigned low,
                 unsigned high, unsigned stream) {
    int step = *counter;
    Place at = place_of(samples, count);
    if (!at.inside || step < 0 || step >= rows) return;
    Row row = table[step];
    size_t first = (size_t)at.sample * count + at.e;
    float v[4], x0[4], last[4], z[4];
    get4(x + first, v, at);
    get4(y + first, x0, at);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        x0[j] = row.cx * v[j] + row.cy * x0[j];
        if (clip) x0[j] = x0[j] < -1 ? -1 : x0[j] > 1 ? 1 : x0[j];  // NaN stays NaN
        v[j] = row.a * v[j] + row.b * x0[j];
    }
    if (row.c != 0) {
        get4(before + first, last, at);
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] += row.c * last[j];
    }
    if (row.s != 0) {
        normal4({low, high, stream, (unsigned)timesteps[step]}, at.e / 4, index[at.sample], z);
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] += row.s * z[j];
    }
    put4(x + first, v, at);
    if (input) put4(input + first, v, at);
    if (before) put4(before + first, x0, at);
    if (at.e == 0 && step + 1 < rows) t[at.sample] = timesteps[step + 1];
}
