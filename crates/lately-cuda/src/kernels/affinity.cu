// How near a candidate is to what the user did (lately_model::device::AffinityParts): a block a row. In f32; each number is
// made by one thread in the order of the tokens.

#if AFFINITY > 0

// A token's kind: the type of its action, and whether it is recent.
#define ACTION_OF(kind) ((kind) & 0xffu)
#define IS_RECENT(kind) ((kind) >> 8 != 0)

extern "C" __global__ void __launch_bounds__(128)
affinity(const u32 *__restrict__ input, const u32 *__restrict__ table, const u32 *__restrict__ scratch, u16 *out) {
    SHARED(shared);
    float *cosines = (float *)shared;
    const u32 row = blockIdx.x;
    if (row >= input[ROWS]) return;
    const Request r = request_of(input, input[input[AT_ROWS] + row]);
    const u32 padded = 16 * r.tiles;
    const float *candidate = (const float *)item_of(input, table, row);
    const float *items = (const float *)scratch + input[AT_TOKEN_ITEMS] + (size_t)r.first_tile * 16 * CANDIDATE;
    const float *lengths = (const float *)scratch + input[AT_LENGTHS] + (size_t)r.first_tile * 16;
    const u32 *kinds = input + input[AT_KINDS] + (size_t)r.first_tile * 16;

    for (u32 j = threadIdx.x; j < r.tokens; j += blockDim.x) {
        float sum = 0.0f, own = 0.0f;
        for (u32 c = 0; c < CANDIDATE; c++) {
            sum += candidate[c] * items[c * padded + j];
            own += candidate[c] * candidate[c];
        }
        float length = sqrtf(own) * lengths[j];
        // Below every cosine where there is none.
        cosines[j] = length > 0.0f ? sum / length : MINUS_INFINITY;
    }
    __syncthreads();

    for (u32 i = threadIdx.x; i < 2 * ACTIONS; i += blockDim.x) {
        float largest = MINUS_INFINITY, sum = 0.0f;
        u32 count = 0;
        for (u32 j = 0; j < r.tokens; j++) {
            u32 kind = kinds[j];
            float cosine = cosines[j];
            if (ACTION_OF(kind) != i / 2 || (i % 2 == 0 && !IS_RECENT(kind)) || cosine == MINUS_INFINITY) continue;
            largest = fmaxf(largest, cosine);
            sum += cosine;
            count++;
        }
        out[a_index(row, OUTPUT + 2 * i, INPUT_TILES)] = bf16(count > 0 ? AFFINITY_SCALE * largest : 0.0f);
        out[a_index(row, OUTPUT + 2 * i + 1, INPUT_TILES)] = bf16(count > 0 ? AFFINITY_SCALE * sum / (float)count : 0.0f);
    }
}

#endif
