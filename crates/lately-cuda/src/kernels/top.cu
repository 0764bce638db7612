// Cross layers, MLP and heads: products of rows x inputs with a weight, both as fragments in memory (prelude.cu), with what
// follows the product done to its sums. What a kernel writes is what the next one reads as its factor.
//
// A block of four warps makes 64 rows x 64 outputs, a warp 32 x 32. Rows beyond the last are computed of whatever is
// there, as a row of a product depends on its own row alone.

enum { LINEAR, RELU, GATE, LOGITS };

// What a request's columns add to the first product, with its bias: requests x outputs up to whole tiles, f32. A thread an
// output. `weight`: the columns' part, inputs x outputs.
extern "C" __global__ void __launch_bounds__(128)
request_sums(const u32 *__restrict__ input, const u32 *__restrict__ weights, u32 weight, u32 bias, u32 outputs, u32 *scratch) {
    const u32 request = blockIdx.y, column = blockIdx.x * blockDim.x + threadIdx.x, width = CEIL16(outputs);
    if (request >= input[REQUESTS] || column >= width) return;
    const float *w = (const float *)weights + weight + column;
    const float *x = (const float *)input + input[AT_COLUMNS] + (size_t)request * REQUEST_COLUMNS;
    float sum = ((const float *)weights)[bias + column];
    for (u32 k = 0; k < REQUEST_COLUMNS; k++) sum += w[(size_t)k * width] * x[k];
    ((float *)scratch)[input[AT_SUMS] + (size_t)request * width + column] = sum;
}

struct Product {
    const uint4 *x, *weight;
    const float *bias;
    // Where the first product's sums start instead: requests x outputs. Else null.
    const float *sums;
    // Tiles of 16 inputs, how many of them are multiplied, tiles of 16 outputs, outputs.
    u32 inputs, multiplied, tiles, outputs;
};

DEVICE void unpack(uint4 v, u32 (&a)[4]) {
    a[0] = v.x;
    a[1] = v.y;
    a[2] = v.z;
    a[3] = v.w;
}

// Where sums start: the bias, or what the row's request has of the first product. Rows beyond the last take the last one's.
DEVICE void start(const u32 *input, const Product &p, u32 row_tile, u32 tile, u32 second, u32 lane, float (&c)[2][4][4]) {
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float *from = p.bias;
            if (p.sums) {
                u32 row = (row_tile + r) * 16 + half * 8 + lane / 4, last = input[ROWS] - 1;
                from = p.sums + (size_t)input[input[AT_ROWS] + (row < last ? row : last)] * p.tiles * 16;
            }
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    c[r][n][2 * half + i] = from[(tile + n / 2 * second) * 16 + n % 2 * 8 + lane % 4 * 2 + i];
        }
}

// Sums of two tiles of rows x two tiles of 16 outputs. The next factors are on their way while the present ones are
// multiplied.
DEVICE void product(const u32 *input, const Product &p, u32 row_tile, u32 tile, u32 lane, float (&c)[2][4][4]) {
    const u32 second = tile + 1 < p.tiles ? 1 : 0, stride = p.inputs * 32;
    const uint4 *x = p.x + (size_t)row_tile * stride + lane, *w = p.weight + (size_t)tile * stride + lane;
    start(input, p, row_tile, tile, second, lane, c);
    uint4 x0 = x[0], x1 = x[stride], w0 = w[0], w1 = w[second * stride];
    for (u32 k = 1; k <= p.multiplied; k++) {
        u32 next = (k < p.multiplied ? k : 0) * 32;
        uint4 y0 = x[next], y1 = x[stride + next], v0 = w[next], v1 = w[second * stride + next];
        u32 a0[4], a1[4];
        unpack(x0, a0);
        unpack(x1, a1);
        mma(c[0][0], a0, w0.x, w0.y);
        mma(c[0][1], a0, w0.z, w0.w);
        mma(c[0][2], a0, w1.x, w1.y);
        mma(c[0][3], a0, w1.z, w1.w);
        mma(c[1][0], a1, w0.x, w0.y);
        mma(c[1][1], a1, w0.z, w0.w);
        mma(c[1][2], a1, w1.x, w1.y);
        mma(c[1][3], a1, w1.z, w1.w);
        x0 = y0, x1 = y1, w0 = v0, w1 = v1;
    }
}

// `x0 * inner + x` of two numbers in a word each.
DEVICE u32 gated(u32 x0, u32 x, float first, float second) {
    return pack(low(x0) * first + low(x), high(x0) * second + high(x));
}

// Sums of 16 rows x 16 outputs (c0 the first 8) to the fragment at `at`.
template <int KIND>
DEVICE void finish(float (&c0)[4], float (&c1)[4], size_t at, const uint4 *base, const uint4 *x, uint4 *out) {
    if (KIND == RELU) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // What is no number stays none, so that the host sees it.
            c0[i] = c0[i] < 0.0f ? 0.0f : c0[i];
            c1[i] = c1[i] < 0.0f ? 0.0f : c1[i];
        }
    }
    uint4 y;
    if (KIND == GATE) {
        uint4 b = base[at], v = x[at];
        y.x = gated(b.x, v.x, c0[0], c0[1]);
        y.y = gated(b.y, v.y, c0[2], c0[3]);
        y.z = gated(b.z, v.z, c1[0], c1[1]);
        y.w = gated(b.w, v.w, c1[2], c1[3]);
    } else {
        y.x = pack(c0[0], c0[1]);
        y.y = pack(c0[2], c0[3]);
        y.z = pack(c1[0], c1[1]);
        y.w = pack(c1[2], c1[3]);
    }
    out[at] = y;
}

template <int KIND>
DEVICE void dense(const u32 *input, const Product &p, const uint4 *base, void *out) {
    const u32 rows = input[ROWS], warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const u32 row_tile = blockIdx.y * 4 + warp / 2 * 2, tile = blockIdx.x * 4 + warp % 2 * 2;
    if (row_tile * 16 >= rows || tile >= p.tiles) return;
    float c[2][4][4];
    product(input, p, row_tile, tile, lane, c);
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int n = 0; n < 2; n++) {
            if (tile + n >= p.tiles) continue;
            if (KIND == LOGITS) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    u32 row = (row_tile + r) * 16 + lane / 4 + i % 4 / 2 * 8;
                    u32 column = (tile + n) * 16 + i / 4 * 8 + lane % 4 * 2 + i % 2;
                    if (row < rows && column < p.outputs)
                        ((float *)out)[(size_t)row * p.outputs + column] = c[r][2 * n + i / 4][i % 4];
                }
            } else {
                size_t at = ((size_t)(row_tile + r) * p.tiles + tile + n) * 32 + lane;
                finish<KIND>(c[r][2 * n], c[r][2 * n + 1], at, base, p.x, (uint4 *)out);
            }
        }
}

// `weight`, `bias`: their first words. `first`: whether this is the first product, which leaves out the request's columns.
// `base`: the cross layers' first input, of gates alone.
#define DENSE(name, KIND)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128)                                                                  \
    name(const u32 *__restrict__ input, const u32 *__restrict__ weights, u32 weight, u32 bias, u32 inputs, u32 outputs, \
         u32 first, const u32 *__restrict__ scratch, const uint4 *__restrict__ x, const uint4 *__restrict__ base,      \
         void *out) {                                                                                                  \
        const float *sums = first ? (const float *)scratch + input[AT_SUMS] : (const float *)0;                        \
        const u32 tiles = CEIL16(inputs) / 16;                                                                         \
        const Product p = {x, (const uint4 *)(weights + weight), (const float *)(weights + bias), sums, tiles,         \
                           first ? REQUEST_AT / 16 : tiles, CEIL16(outputs) / 16, outputs};                            \
        dense<KIND>(input, p, base, out);                                                                              \
    }

DENSE(dense_linear, LINEAR)
DENSE(dense_relu, RELU)
DENSE(dense_gate, GATE)
DENSE(dense_logits, LOGITS)
