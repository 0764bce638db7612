// What stands beside the encoder's columns of the top's inputs (columns.rs has their order), and the table of items.
//
// The table has a slot an item, which is never written while a call may read it (items.rs). An item that a call brings along
// is read from the call's input, so that nothing in a call waits for the table, and is stored for calls to come.

#define NO_SLOT 0xffffffffu
#define ITEM_AT (OUTPUT + AFFINITY)

// A block a row: the item's columns and the request's, 0 between and beyond. The first blocks store an item each.
extern "C" __global__ void __launch_bounds__(128) place_features(const u32 *__restrict__ input, u32 *table, u16 *out) {
    const u32 row = blockIdx.x;
    if (row >= input[ROWS]) return;
    if (row < input[STAGED]) {
        const u32 slot = input[input[AT_SLOTS] + row], *from = input + input[AT_STAGED] + (size_t)row * ITEM_WORDS;
        if (slot != NO_SLOT)
            for (u32 i = threadIdx.x; i < ITEM_WORDS; i += blockDim.x) table[(size_t)slot * ITEM_WORDS + i] = from[i];
    }
    const u16 *item = (const u16 *)(item_of(input, table, row) + CANDIDATE);
    const float *shared = (const float *)input + input[AT_COLUMNS] + (size_t)input[input[AT_ROWS] + row] * REQUEST_COLUMNS;
    for (u32 i = ITEM_AT + threadIdx.x; i < 16 * INPUT_TILES; i += blockDim.x) {
        u16 value = 0;
        if (i < ITEM_AT + ITEM_COLUMNS) value = item[i - ITEM_AT];
        else if (i >= REQUEST_AT && i < INPUTS) value = bf16(shared[i - REQUEST_AT]);
        out[a_index(row, i, INPUT_TILES)] = value;
    }
}
