// One step of any sampler that asks the network once a step: ancestral, DDIM, Euler, Euler ancestral, DPM-Solver++(2M).
//
//   x0_hat = cx x + cy y, with clip_x0 within [-1, 1]           y the network's output, a prediction of any kind
//   x      <- a x + b x0_hat + c x0_hat' + s z                  x0_hat' that of the step before, z ~ N(0, I)
//
// eps_hat is (x - a_t x0_hat) / s_t, before and after the clipping, so it is a part of a and b. The coefficients are a
// table of one row a step; the row is the counter's, on the device, so one captured graph is every step. Past the last
// row nothing is written. z is drawn from the sequence (seed, the stream STEP, t of the row), sample by sample.
//
// A thread takes four elements of one sample and writes in place what it alone has read. Bytes an element: x 8, y
// sizeof(Real), the network's next input in bfloat16 2, x0_hat 8 where the next step needs it. Operations as in random.cu
// where s is not 0. Floor: the bytes over the copy bandwidth.
#include <philox.cuh>

struct alignas(16) Row {
    float cx, cy, a, b, c, s, unused[2];
};

// x, y, input, before (samples, count); table, timesteps (rows,); t, sample_ids (samples,).
struct SamplerStep {
    float* x;
    Real* input;  // x for the network in bfloat16, or null where it reads x itself
    const Real* y;
    float* before;  // x0_hat of the last step, or null where no row has c
    const Row* table;
    const int *timesteps, *counter, *sample_ids;
    int* t;  // the network's input, becomes that of the next row
    int rows, samples, count, clip_x0;
    Sequence noise;  // its step is t of the row
};

extern "C" __global__ void __launch_bounds__(256) sampler_step(PARAM SamplerStep of) {
    int step = *of.counter;
    Place at = place_of(of.samples, of.count);
    if (!at.inside || step < 0 || step >= of.rows) return;
    Row row = of.table[step];
    size_t first = (size_t)at.sample * of.count + at.e;
    float v[4], x0[4], last[4], z[4];
    get4(of.x + first, v, at);
    get4(of.y + first, x0, at);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        x0[j] = row.cx * v[j] + row.cy * x0[j];
        if (of.clip_x0) x0[j] = x0[j] < -1 ? -1 : x0[j] > 1 ? 1 : x0[j];  // NaN stays NaN
        v[j] = row.a * v[j] + row.b * x0[j];
    }
    if (row.c != 0) {
        get4(of.before + first, last, at);
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] += row.c * last[j];
    }
    if (row.s != 0) {
        Key key = key_of(of.noise);
        key.step = of.timesteps[step];
        normal4(key, at.e / 4, of.sample_ids[at.sample], z);
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] += row.s * z[j];
    }
    put4(of.x + first, v, at);
    if (of.input) put4(of.input + first, v, at);
    if (of.before) put4(of.before + first, x0, at);
    if (at.e == 0 && step + 1 < of.rows) of.t[at.sample] = of.timesteps[step + 1];
}
