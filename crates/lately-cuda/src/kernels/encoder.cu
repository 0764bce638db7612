// The transformer of one candidate, end to end in one block: a warp for each 16 of its tokens, whose activations stay in its
// registers, in f32, from the first layer to the outputs.
//
// Layer 1 takes the request's part (request.cu): probabilities are E_ij e_j / sum_j E_ij e_j with e_j the exponential of the
// candidate's own logit. Where a sum is below GUARD, a warp takes the plain path, the softmax of both logits' sum. Later
// layers attend by folded weights over keys and values in shared memory, the softmax made online over 16 keys at a time
// (Milakov and Gimelshein 2018; Dao et al. 2022). Operands are bfloat16, sums f32. Only tiles of 16 with a token are computed.

#if WIDTH > 0

#define TILES_OF_WIDTH (VALUE_WIDTH / 16)
#define COLUMNS (VALUE_WIDTH / 8)
#define FFN_TILES (CEIL16(FFN) / 16)
// Numbers a row of keys or values in shared memory: 16 bytes more than it holds, so that the eight rows of a matrix lie in
// different banks.
#define PITCH (VALUE_WIDTH + 8)
#define POOL_WIDTH (POOL * WIDTH)

typedef float Activations[COLUMNS][4];

// As factors of A.
DEVICE void to_factors(const Activations &x, u32 (&a)[TILES_OF_WIDTH][4]) {
#pragma unroll
    for (int k = 0; k < TILES_OF_WIDTH; k++) {
        a[k][0] = pack(x[2 * k][0], x[2 * k][1]);
        a[k][1] = pack(x[2 * k][2], x[2 * k][3]);
        a[k][2] = pack(x[2 * k + 1][0], x[2 * k + 1][1]);
        a[k][3] = pack(x[2 * k + 1][2], x[2 * k + 1][3]);
    }
}

// Layer normalisation of each row; columns beyond the width are 0 before and after.
DEVICE void norm(Activations &x, const float *gamma, const float *beta, u32 t) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = 0.0f, squares = 0.0f;
#pragma unroll
        for (int n = 0; n < COLUMNS; n++) sum += x[n][2 * half] + x[n][2 * half + 1];
        float mean = quad_sum(sum) * (1.0f / WIDTH);
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float apart = n * 8 + 2 * t + i < WIDTH ? x[n][2 * half + i] - mean : 0.0f;
                squares += apart * apart;
            }
        float rate = rsqrtf(quad_sum(squares) * (1.0f / WIDTH) + 1e-5f);
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                u32 column = n * 8 + 2 * t + i;
                x[n][2 * half + i] = (x[n][2 * half + i] - mean) * rate * gamma[column] + beta[column];
            }
    }
}

// x += bias, one number a column.
DEVICE void add_bias(Activations &x, const float *bias, u32 t) {
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[n][i] += bias[n * 8 + 2 * t + i % 2];
}

// The feed-forward part with its residual, 16 hidden features at a time.
DEVICE void feed_forward(Activations &x, const u32 *layer, u32 lane) {
    const uint4 *first = (const uint4 *)(layer + LINEAR1), *second = (const uint4 *)(layer + LINEAR2);
    const float *bias = (const float *)(layer + BIAS1);
    const u32 t = lane % 4;
    u32 a[TILES_OF_WIDTH][4];
    to_factors(x, a);
    add_bias(x, (const float *)(layer + BIAS2), t);
#pragma unroll 2
    for (int f = 0; f < FFN_TILES; f++) {
        float hidden[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++) hidden[half][i] = bias[f * 16 + half * 8 + 2 * t + i % 2];
#pragma unroll
        for (int k = 0; k < TILES_OF_WIDTH; k++) {
            uint4 b = first[(f * TILES_OF_WIDTH + k) * 32 + lane];
            mma(hidden[0], a[k], b.x, b.y);
            mma(hidden[1], a[k], b.z, b.w);
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++) hidden[half][i] = hidden[half][i] > 0.0f ? hidden[half][i] : 0.0f;
        u32 h[4] = {pack(hidden[0][0], hidden[0][1]), pack(hidden[0][2], hidden[0][3]),
                    pack(hidden[1][0], hidden[1][1]), pack(hidden[1][2], hidden[1][3])};
#pragma unroll
        for (int n = 0; n < TILES_OF_WIDTH; n++) {
            uint4 b = second[(n * FFN_TILES + f) * 32 + lane];
            mma(x[2 * n], h, b.x, b.y);
            mma(x[2 * n + 1], h, b.z, b.w);
        }
    }
}

// From the attention's sum with its residual to the layer's output.
DEVICE void rest_of_layer(Activations &x, const u32 *layer, u32 lane) {
    norm(x, (const float *)(layer + GAMMA1), (const float *)(layer + BETA1), lane % 4);
    feed_forward(x, layer, lane);
    norm(x, (const float *)(layer + GAMMA2), (const float *)(layer + BETA2), lane % 4);
}

// A softmax on its way over keys: largest logit, sum and weighted values so far, of rows g and g + 8.
struct Online {
    float largest[2], sum[2];
    Activations values;
};

DEVICE void start(Online &online) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        online.largest[half] = MINUS_INFINITY;
        online.sum[half] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) online.values[n][i] = 0.0f;
}

// Takes the logits of 16 keys (two fragments of C; closed keys minus infinity) and gives their weights as a factor.
DEVICE void absorb(Online &online, float (&logit)[2][4], u32 (&a)[4]) {
    float scale[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float *l0 = &logit[0][2 * half], *l1 = &logit[1][2 * half];
        float largest = fmaxf(online.largest[half], quad_max(fmaxf(fmaxf(l0[0], l0[1]), fmaxf(l1[0], l1[1]))));
        float from = largest == MINUS_INFINITY ? 0.0f : largest;
        scale[half] = exponential(online.largest[half] - from);
        online.largest[half] = largest;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            l0[i] = exponential(l0[i] - from);
            l1[i] = exponential(l1[i] - from);
            sum += l0[i] + l1[i];
        }
        online.sum[half] = online.sum[half] * scale[half] + sum;
    }
    if (__any_sync(0xffffffffu, scale[0] != 1.0f || scale[1] != 1.0f)) {
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) online.values[n][i] *= scale[i / 2];
    }
    a[0] = pack(logit[0][0], logit[0][1]);
    a[1] = pack(logit[0][2], logit[0][3]);
    a[2] = pack(logit[1][0], logit[1][1]);
    a[3] = pack(logit[1][2], logit[1][3]);
}

// What the weighted values are multiplied by; 0 where no key is open.
DEVICE float share_of(float sum) {
    sum = quad_sum(sum);
    return sum > 0.0f ? 1.0f / sum : 0.0f;
}

// values += a B, B the request's values of 16 tokens.
DEVICE void add_values(Activations &values, const u32 (&a)[4], const uint4 *b, u32 lane) {
#pragma unroll
    for (int n = 0; n < TILES_OF_WIDTH; n++) {
        uint4 w = b[n * 32 + lane];
        mma(values[2 * n], a, w.x, w.y);
        mma(values[2 * n + 1], a, w.z, w.w);
    }
}

// Pointers to the request's part and the candidate's, for one warp.
struct First {
    const uint4 *exponentials, *values;
    const float *logits, *open, *own, *exponents;
    u32 tokens, tiles, warp, any_open;
};

// By shared exponentials; false where a sum of this warp cannot be trusted.
DEVICE bool attend_shared(const First &first, Activations &values, u32 lane) {
    const u32 g = lane / 4, t = lane % 4;
    float sum[2] = {0.0f, 0.0f};
    for (u32 k = 0; k < first.tiles; k++) {
        uint4 e = first.exponentials[k * 32 + lane];
        const float *own = first.exponents + k * 16 + 2 * t;
        float p0[2] = {low(e.x) * own[0], high(e.x) * own[1]}, p1[2] = {low(e.y) * own[0], high(e.y) * own[1]};
        float p2[2] = {low(e.z) * own[8], high(e.z) * own[9]}, p3[2] = {low(e.w) * own[8], high(e.w) * own[9]};
        sum[0] += p0[0] + p0[1] + p2[0] + p2[1];
        sum[1] += p1[0] + p1[1] + p3[0] + p3[1];
        u32 a[4] = {pack(p0[0], p0[1]), pack(p1[0], p1[1]), pack(p2[0], p2[1]), pack(p3[0], p3[1])};
        add_values(values, a, first.values + k * TILES_OF_WIDTH * 32, lane);
    }
    bool trusted = true;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = quad_sum(sum[half]);
        trusted = trusted && (total >= GUARD || first.warp * 16 + g + 8 * half >= first.tokens);
        float share = total > 0.0f ? 1.0f / total : 0.0f;
#pragma unroll
        for (int n = 0; n < COLUMNS; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) values[n][2 * half + i] *= share;
    }
    return !__any_sync(0xffffffffu, !trusted) || !first.any_open;
}

// The same by the softmax of the sum of the request's logits and the candidate's.
DEVICE void attend_plain(const First &first, Activations &values, u32 lane) {
    const u32 g = lane / 4, t = lane % 4, padded = 16 * first.tiles;
    Online online;
    start(online);
    for (u32 k = 0; k < first.tiles; k++) {
        float logit[2][4];
        u32 a[4];
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                u32 row = first.warp * 16 + g + i / 2 * 8, key = k * 16 + half * 8 + 2 * t + i % 2;
                bool open = first.open[key] > 0.0f;
                logit[half][i] = open ? first.logits[(size_t)row * padded + key] + first.own[key] : MINUS_INFINITY;
            }
        absorb(online, logit, a);
        add_values(online.values, a, first.values + k * TILES_OF_WIDTH * 32, lane);
    }
    float share[2] = {share_of(online.sum[0]), share_of(online.sum[1])};
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) values[n][i] = online.values[n][i] * share[i / 2];
}

// Keys (the tokens themselves) and values of a later layer into shared memory; the queries as factors.
DEVICE void project(const Activations &x, const u32 *layer, u16 *keys, u16 *values, u32 (&query)[TILES_OF_WIDTH][4],
                    u32 warp, u32 lane) {
    const u32 g = lane / 4, t = lane % 4;
    const uint4 *of_query = (const uint4 *)(layer + QUERY), *of_value = (const uint4 *)(layer + VALUE);
    const float *query_bias = (const float *)(layer + QUERY_BIAS), *value_bias = (const float *)(layer + VALUE_BIAS);
    u32 a[TILES_OF_WIDTH][4];
    to_factors(x, a);
    u32 *key_rows = (u32 *)(keys + (warp * 16 + g) * PITCH + 2 * t);
    u32 *value_rows = (u32 *)(values + (warp * 16 + g) * PITCH + 2 * t);
#pragma unroll
    for (int n = 0; n < TILES_OF_WIDTH; n++) {
        key_rows[n * 8] = a[n][0];
        key_rows[n * 8 + 4 * PITCH] = a[n][1];
        key_rows[n * 8 + 4] = a[n][2];
        key_rows[n * 8 + 4 + 4 * PITCH] = a[n][3];
        float q[2][4], v[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                u32 column = n * 16 + half * 8 + 2 * t + i % 2;
                q[half][i] = query_bias[column];
                v[half][i] = value_bias[column];
            }
#pragma unroll
        for (int k = 0; k < TILES_OF_WIDTH; k++) {
            uint4 b = of_query[(n * TILES_OF_WIDTH + k) * 32 + lane];
            mma(q[0], a[k], b.x, b.y);
            mma(q[1], a[k], b.z, b.w);
            b = of_value[(n * TILES_OF_WIDTH + k) * 32 + lane];
            mma(v[0], a[k], b.x, b.y);
            mma(v[1], a[k], b.z, b.w);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            query[n][2 * half] = pack(q[half][0], q[half][1]);
            query[n][2 * half + 1] = pack(q[half][2], q[half][3]);
            value_rows[n * 8 + half * 4] = pack(v[half][0], v[half][1]);
            value_rows[n * 8 + half * 4 + 4 * PITCH] = pack(v[half][2], v[half][3]);
        }
    }
}

// x += attention over the keys and values in shared memory.
DEVICE void attend(Activations &x, const u32 (&query)[TILES_OF_WIDTH][4], const u16 *keys, const u16 *values,
                   const float *open, u32 tiles, u32 lane) {
    const u32 t = lane % 4, matrix = lane / 8;
    Online online;
    start(online);
    for (u32 k = 0; k < tiles; k++) {
        float logit[2][4];
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++) logit[half][i] = 0.0f;
        const u16 *key = keys + (k * 16 + matrix / 2 * 8 + lane % 8) * PITCH + matrix % 2 * 8;
#pragma unroll
        for (int f = 0; f < TILES_OF_WIDTH; f++) {
            uint4 b = ldmatrix(key + f * 16);
            mma(logit[0], query[f], b.x, b.y);
            mma(logit[1], query[f], b.z, b.w);
        }
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!(open[k * 16 + half * 8 + 2 * t + i % 2] > 0.0f)) logit[half][i] = MINUS_INFINITY;
        u32 a[4];
        absorb(online, logit, a);
        const u16 *value = values + (k * 16 + matrix % 2 * 8 + lane % 8) * PITCH + matrix / 2 * 8;
#pragma unroll
        for (int n = 0; n < TILES_OF_WIDTH; n++) {
            uint4 b = ldmatrix_transposed(value + n * 16);
            mma(online.values[2 * n], a, b.x, b.y);
            mma(online.values[2 * n + 1], a, b.z, b.w);
        }
    }
    float share[2] = {share_of(online.sum[0]), share_of(online.sum[1])};
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[n][i] += online.values[n][i] * share[i / 2];
}

// Two neighbours of a row of the top's inputs.
DEVICE void store(u16 *out, u32 row, u32 column, float first, float second, bool both) {
    if (both && column % 2 == 0) {
        *(u32 *)(out + a_index(row, column, INPUT_TILES)) = pack(first, second);
        return;
    }
    out[a_index(row, column, INPUT_TILES)] = bf16(first);
    if (both) out[a_index(row, column + 1, INPUT_TILES)] = bf16(second);
}

// The first tokens into the top's inputs, the warp's maxima into `largest`.
DEVICE void outputs(const Activations &x, u16 *out, float *largest, u32 row, u32 tokens, u32 warp, u32 lane) {
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++) {
        u32 column = n * 8 + 2 * t;
        float top[2] = {MINUS_INFINITY, MINUS_INFINITY};
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 token = warp * 16 + g + 8 * half;
            if (token >= tokens) continue;
            top[0] = fmaxf(top[0], x[n][2 * half]);
            top[1] = fmaxf(top[1], x[n][2 * half + 1]);
            if (token < FIRST_K && column < WIDTH)
                store(out, row, POOL_WIDTH + token * WIDTH + column, x[n][2 * half], x[n][2 * half + 1],
                      column + 1 < WIDTH);
        }
#if POOL
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2) {
            top[0] = fmaxf(top[0], __shfl_xor_sync(0xffffffffu, top[0], apart));
            top[1] = fmaxf(top[1], __shfl_xor_sync(0xffffffffu, top[1], apart));
        }
        if (g == 0) {
            largest[warp * VALUE_WIDTH + column] = top[0];
            largest[warp * VALUE_WIDTH + column + 1] = top[1];
        }
#endif
    }
}

#if POOL
// The linear map of the maximum over tokens.
DEVICE void pool(const float *largest, float *pooled, const u32 *weights, u16 *out, u32 row, u32 warps) {
    for (u32 i = threadIdx.x; i < VALUE_WIDTH; i += blockDim.x) {
        float top = MINUS_INFINITY;
        for (u32 w = 0; w < warps; w++) top = fmaxf(top, largest[w * VALUE_WIDTH + i]);
        pooled[i] = i < WIDTH ? top : 0.0f;
    }
    __syncthreads();
    const float *bias = (const float *)(weights + POOL_BIAS);
    for (u32 i = threadIdx.x; i < POOL_WIDTH; i += blockDim.x) {
        float sum = bias[i];
        for (u32 k = 0; k < VALUE_WIDTH / 2; k++) {
            u32 w = weights[POOL_WEIGHT + k * VALUE_WIDTH + i];
            sum += low(w) * pooled[2 * k] + high(w) * pooled[2 * k + 1];
        }
        out[a_index(row, i, INPUT_TILES)] = bf16(sum);
    }
}
#endif

// A candidate's own logits and value, and the exponentials of the former, all in shared memory.
DEVICE void own_part(const u32 *input, const u32 *weights, const u32 *scratch, const Request &r, const float *open,
                     const float *from, float *candidate, float *own, float *exponents, float *value) {
    const float *w = (const float *)weights;
    const u32 padded = 16 * r.tiles, thread = threadIdx.x, threads = blockDim.x;
    for (u32 i = thread; i < CANDIDATE; i += threads) candidate[i] = from[i];
    __syncthreads();
    const float *keys = (const float *)scratch + input[AT_CANDIDATE_KEYS] + (size_t)r.first_tile * 16 * CANDIDATE;
    for (u32 j = thread; j < padded; j += threads) {
        float sum = 0.0f;
        for (u32 c = 0; c < CANDIDATE; c++) sum += keys[c * padded + j] * candidate[c];
        own[j] = sum;
    }
    for (u32 i = thread; i < VALUE_WIDTH; i += threads) {
        float sum = w[LAYERS_AT + OUT_BIAS + i];
        for (u32 c = 0; c < CANDIDATE; c++) sum += w[CANDIDATE_VALUE + c * VALUE_WIDTH + i] * candidate[c];
        value[i] = sum;
    }
    __syncthreads();
    float largest = MINUS_INFINITY;
    for (u32 j = thread % 32; j < padded; j += 32)
        if (open[j] > 0.0f) largest = fmaxf(largest, own[j]);
    largest = warp_max(largest);
    for (u32 j = thread; j < padded; j += threads)
        exponents[j] = open[j] > 0.0f ? exponential(own[j] - largest) : 0.0f;
    __syncthreads();
}

// The first layer's residual sum: attention, [token ; candidate], and the candidate's value with the bias.
DEVICE void first_residual(Activations &x, const float *tokens, const float *candidate, const float *value, u32 lane) {
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u32 column = n * 8 + 2 * t + i % 2;
            float residual = 0.0f;
            if (column < TOKEN) residual = tokens[(g + i / 2 * 8) * TOKEN + column];
            else if (column < WIDTH) residual = candidate[column - TOKEN];
            x[n][i] += residual + value[column];
        }
}

extern "C" __global__ void __launch_bounds__(2 * TOKENS, BLOCKS)
encode(const u32 *__restrict__ input, const u32 *__restrict__ weights, const u32 *__restrict__ table,
       const u32 *__restrict__ scratch, u16 *out) {
    SHARED(shared);
    const u32 row = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= input[ROWS]) return;
    const Request r = request_of(input, input[input[AT_ROWS] + row]);
    const u32 kept = r.tokens < FIRST_K ? r.tokens : FIRST_K, given = r.tokens > 0 ? POOL_WIDTH : 0;
    for (u32 i = threadIdx.x; i < OUTPUT; i += blockDim.x)
        if (i >= given && (i < POOL_WIDTH || i >= POOL_WIDTH + kept * WIDTH)) out[a_index(row, i, INPUT_TILES)] = 0;
    if (r.tokens == 0) return;

    const u32 most = blockDim.x / 2;  // tokens, as many as the block has rows
    u16 *keys = (u16 *)shared, *values = keys + most * PITCH;
    float *own = (float *)(values + most * PITCH), *exponents = own + most, *value = exponents + most;
    float *candidate = value + VALUE_WIDTH, *pooled = candidate + CEIL16(CANDIDATE), *largest = pooled + VALUE_WIDTH;
    const float *open = (const float *)input + input[AT_OPEN] + (size_t)r.first_tile * 16;
    const bool active = warp < r.tiles;
    const float *item = (const float *)item_of(input, table, row);
    own_part(input, weights, scratch, r, open, item, candidate, own, exponents, value);

    Activations x;
#pragma unroll
    for (int n = 0; n < COLUMNS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[n][i] = 0.0f;
    if (active) {
        u32 any_open = 0;
        for (u32 j = lane; j < r.tokens; j += 32) any_open |= open[j] > 0.0f;
        First first;
        first.exponentials = (const uint4 *)(scratch + input[AT_EXPONENTIALS]) +
                             ((size_t)r.first_square + (size_t)warp * r.tiles) * 32;
        first.values = (const uint4 *)(scratch + input[AT_VALUES]) + (size_t)r.first_tile * TILES_OF_WIDTH * 32;
        first.logits = (const float *)scratch + input[AT_LOGITS] + (size_t)r.first_square * 256;
        first.open = open;
        first.own = own;
        first.exponents = exponents;
        first.tokens = r.tokens;
        first.tiles = r.tiles;
        first.warp = warp;
        first.any_open = __any_sync(0xffffffffu, any_open != 0);
        if (!attend_shared(first, x, lane)) attend_plain(first, x, lane);
        const float *tokens = (const float *)input + input[AT_TOKENS] + (size_t)(r.first_tile + warp) * 16 * TOKEN;
        first_residual(x, tokens, candidate, value, lane);
        rest_of_layer(x, weights + LAYERS_AT, lane);
    }
#pragma unroll 1
    for (int l = 1; l < LAYERS; l++) {
        const u32 *layer = weights + LAYERS_AT + l * LAYER_WORDS;
        u32 query[TILES_OF_WIDTH][4];
        if (active) project(x, layer, keys, values, query, warp, lane);
        __syncthreads();
        if (active) {
            add_bias(x, (const float *)(layer + OUT_BIAS), lane % 4);
            attend(x, query, keys, values, open, r.tiles, lane);
            rest_of_layer(x, layer, lane);
        }
        __syncthreads();
    }
    if (active) outputs(x, out, largest, row, r.tokens, warp, lane);
#if POOL
    __syncthreads();
    pool(largest, pooled, weights, out, row, r.tiles);
#endif
}

#endif
