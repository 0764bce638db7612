// What all candidates of a request share in the encoder's first layer (see lately_kernels::shared for the algebra): a block
// for 16 of its tokens.
//
// With token = [a ; c] the first layer's logit of tokens i and j is (Q a_i + u + q c) . a_j. A block makes for its tokens i,
// in f32:
// - logits S_ij = (Q a_i + u) . a_j, for candidates whose sums cannot be trusted, and E_ij = exp(S_ij - max_j S_ij),
//   0 where j may not be looked at, as fragments of A;
// - values V a_i + t, as fragments of B;
// - candidate keys q^T a_i, whose product with a candidate c is its part of the logits.
// For affinity.cu it turns the tokens' items around, and makes their lengths.

#if WIDTH > 0

#define VALUE_WIDTH CEIL16(WIDTH)

struct Request {
    u32 tokens, tiles, first_tile, first_square;
};

DEVICE Request request_of(const u32 *input, u32 index) {
    const u32 *r = input + input[AT_REQUESTS] + 4 * index;
    return Request{r[0], r[1], r[2], r[3]};
}

DEVICE float dot(const float *x, const float *weight, u32 stride) {
    float sum = 0.0f;
    for (u32 k = 0; k < TOKEN; k++) sum += x[k] * weight[k * stride];
    return sum;
}

extern "C" __global__ void __launch_bounds__(128)
request_part(const u32 *__restrict__ input, const u32 *__restrict__ weights, u32 *__restrict__ scratch) {
    SHARED(shared);
    const u32 tile = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
    if (blockIdx.y >= input[REQUESTS]) return;
    const Request r = request_of(input, blockIdx.y);
    if (tile >= r.tiles) return;
    const u32 padded = 16 * r.tiles;
    const float *w = (const float *)weights;
    const float *tokens = (const float *)input + input[AT_TOKENS] + (size_t)r.first_tile * 16 * TOKEN;
    const float *open = (const float *)input + input[AT_OPEN] + (size_t)r.first_tile * 16;
    float *own = (float *)shared, *query = own + 16 * TOKEN, *logits = query + 16 * TOKEN;

    for (u32 i = thread; i < 16 * TOKEN; i += threads) own[i] = tokens[(size_t)tile * 16 * TOKEN + i];
    __syncthreads();

    for (u32 i = thread; i < 16 * TOKEN; i += threads) {
        u32 row = i / TOKEN, column = i % TOKEN;
        query[i] = w[FIRST_QUERY_BIAS + column] + dot(own + row * TOKEN, w + FIRST_QUERY + column, TOKEN);
    }
    u32 *values = scratch + input[AT_VALUES] + (size_t)(r.first_tile + tile) * (VALUE_WIDTH / 16) * 128;
    for (u32 i = thread; i < VALUE_WIDTH / 16 * 128; i += threads) {
        u32 lane = i % 128 / 4, word = i % 4;
        u32 row = lane % 4 * 2 + word % 2 * 8, column = i / 128 * 16 + word / 2 * 8 + lane / 4;
        const float *weight = w + FIRST_VALUE + column;
        float bias = w[FIRST_VALUE_BIAS + column];
        values[i] = pack(bias + dot(own + row * TOKEN, weight, VALUE_WIDTH),
                         bias + dot(own + (row + 1) * TOKEN, weight, VALUE_WIDTH));
    }
    float *keys = (float *)scratch + input[AT_CANDIDATE_KEYS] + (size_t)r.first_tile * 16 * CANDIDATE;
    for (u32 i = thread; i < 16 * CANDIDATE; i += threads) {
        u32 row = i % 16, column = i / 16;
        keys[column * padded + tile * 16 + row] = dot(own + row * TOKEN, w + CANDIDATE_QUERY + column, CANDIDATE);
    }
#if AFFINITY > 0
    float *items = (float *)scratch + input[AT_TOKEN_ITEMS] + (size_t)r.first_tile * 16 * CANDIDATE;
    for (u32 i = thread; i < 16 * CANDIDATE; i += threads)
        items[i / 16 * padded + tile * 16 + i % 16] = own[i % 16 * TOKEN + TOKEN - CANDIDATE + i / 16];
    float *lengths = (float *)scratch + input[AT_LENGTHS] + (size_t)r.first_tile * 16 + tile * 16;
    for (u32 i = thread; i < 16; i += threads) {
        float sum = 0.0f;
        const float *item = own + i * TOKEN + TOKEN - CANDIDATE;
        for (u32 c = 0; c < CANDIDATE; c++) sum += item[c] * item[c];
        lengths[i] = sqrtf(sum);
    }
#endif
    __syncthreads();

    float *all = (float *)scratch + input[AT_LOGITS] + (size_t)r.first_square * 256 + (size_t)tile * 16 * padded;
    for (u32 i = thread; i < 16 * padded; i += threads) {
        float logit = dot(query + i / padded * TOKEN, tokens + (size_t)(i % padded) * TOKEN, 1);
        all[i] = logit;
        logits[i] = logit;
    }
    __syncthreads();

    // A warp a row: its largest logit, then its exponentials in place.
    for (u32 row = thread / 32; row < 16; row += threads / 32) {
        float largest = MINUS_INFINITY;
        for (u32 j = thread % 32; j < padded; j += 32)
            if (open[j] > 0.0f) largest = fmaxf(largest, logits[row * padded + j]);
        largest = warp_max(largest);
        for (u32 j = thread % 32; j < padded; j += 32) {
            float logit = logits[row * padded + j];
            logits[row * padded + j] = open[j] > 0.0f ? exponential(logit - largest) : 0.0f;
        }
    }
    __syncthreads();

    u32 *out = scratch + input[AT_EXPONENTIALS] + ((size_t)r.first_square + (size_t)tile * r.tiles) * 128;
    for (u32 i = thread; i < r.tiles * 128; i += threads) {
        u32 lane = i % 128 / 4, word = i % 4;
        u32 row = lane / 4 + word % 2 * 8, column = i / 128 * 16 + lane % 4 * 2 + word / 2 * 8;
        out[i] = pack(logits[row * padded + column], logits[row * padded + column + 1]);
    }
}

#endif
