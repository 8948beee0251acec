/* Malformed frames for csa.h. As a libFuzzer target (clang -fsanitize=fuzzer -DLIBFUZZER), or as a program of its own:
 *   csa_fuzz COUNT SEED < SEEDS      one seed input a line, as hex; mutates them COUNT times. Build it with the sanitizers.
 */
#define CSA_IMPLEMENTATION
#include "csa.h"

static csa c;
static unsigned char plan[4096], grant[4096];
static size_t plan_size, grant_size;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Execute a grant. */
static uint64_t use(void) {
    const csa_msg *m;
    uint64_t sum = 0;
    while ((m = csa_take(&c))) {
        sum += m->tag + m->addr + m->data + (m->bytes && m->size ? m->bytes[m->size - 1] : 0);
        if (m->kind == CSA_READ) csa_reply(&c, m, CSA_OKAY, sum, c.now);
    }
    csa_done(&c, CSA_NEVER, CSA_NEVER, c.stop);
    return sum;
}

/* Everything that takes bytes from outside: checks, the plan, a grant with its inputs, the answer, the end. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char why[320];
    uint64_t sum = 0;
    csa_check_frame(data, size, NULL, why);
    csa_check_blob(data, size, why);
    csa__reset(&c);
    if (size && data[0] == 0x9c && !csa_take_plan(&c, data, size)) {
        sum += csa_param(&c, "base", 0);
        if (grant_size && csa_take_frame(&c, grant, grant_size) > 0) sum += use(); /* a good grant under an odd plan */
    }
    csa__reset(&c);
    if (plan_size && csa_take_plan(&c, plan, plan_size)) abort();
    if (size > 9 && data[4] == CSA_GRANT && data[9] > 0 && data[9] < 0x80) c.grant = (uint64_t)data[9] - 1;
    if (csa_take_frame(&c, data, size) > 0) sum += use();
    return sum == 0x123456789 ? -1 : 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static uint64_t next(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1dULL;
}

static unsigned char seeds[64][4096];
static size_t sizes[64];
static int nseeds;

static size_t mutate(unsigned char *to) {
    static const unsigned char heads[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc6, 0xc7, 0xcf, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xdf, 0xe0, 0xff};
    int from = (int)(next() % (uint64_t)nseeds), changes = (int)(next() % 6);
    size_t n = sizes[from], at;
    memcpy(to, seeds[from], n);
    while (changes-- > 0 && n) {
        at = (size_t)(next() % n);
        switch (next() % 6) {
        case 0: to[at] = (unsigned char)next(); break;
        case 1: to[at] ^= (unsigned char)(1u << next() % 8); break;
        case 2: to[at] = heads[next() % sizeof heads]; break;
        case 3: n = at; break;
        case 4: memmove(to + at, to + at + 1, n - at - 1); n--; break;
        default:
            if (n < 4096) { memmove(to + at + 1, to + at, n - at); to[at] = (unsigned char)next(); n++; }
        }
    }
    return n;
}

int main(int argc, char **argv) {
    static char line[16384];
    static unsigned char buffer[4097];
    unsigned long count = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000, i;
    state = argc > 2 ? strtoul(argv[2], NULL, 10) * 2 + 1 : 1;
    while (nseeds < 64 && fgets(line, sizeof line, stdin)) {
        size_t n = 0;
        unsigned int b;
        while (n < 4096 && sscanf(line + 2 * n, "%2x", &b) == 1) seeds[nseeds][n++] = (unsigned char)b;
        sizes[nseeds] = n;
        if (n && seeds[nseeds][0] == 0x9c) { memcpy(plan, seeds[nseeds], n); plan_size = n; }
        if (n > 10 && seeds[nseeds][4] == CSA_GRANT && seeds[nseeds][9] == 1) { memcpy(grant, seeds[nseeds], n); grant_size = n; }
        nseeds++;
    }
    if (!nseeds) return 2;
    for (i = 0; i < count; i++) {
        size_t n = mutate(buffer);
        unsigned char *exact = (unsigned char *)malloc(n ? n : 1); /* so that a read past the end is seen */
        if (!exact) return 2;
        memcpy(exact, buffer, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    printf("%lu inputs\n", count);
    return 0;
}
#endif
