/* A foreign node in C: a memory of 4 KiB pages, as the part `memory` of a machine. Run by cosim; see docs/attach.md. */
#define CSA_IMPLEMENTATION
#include "csa.h"

#define PAGE 4096
#define PAGES 16384 /* 64 MiB of touched pages */

static csa node;
static struct { uint64_t number; unsigned char bytes[PAGE]; } pages[PAGES];
static int used, last;

/* The page that holds `address`; NULL when it was never written and `make` is 0, or when there is no room. */
static unsigned char *page_of(uint64_t address, int make) {
    uint64_t number = address / PAGE;
    int i;
    if (last < used && pages[last].number == number) return pages[last].bytes;
    for (i = 0; i < used; i++)
        if (pages[i].number == number) return pages[last = i].bytes;
    if (!make || used == PAGES) return NULL;
    pages[used].number = number;
    return pages[last = used++].bytes;
}

static void load(uint64_t address, unsigned char *to, uint32_t size) {
    uint32_t i;
    for (i = 0; i < size; i++) {
        const unsigned char *page = page_of(address + i, 0);
        to[i] = page ? page[(address + i) % PAGE] : 0;
    }
}

static int store(uint64_t address, const unsigned char *from, uint32_t size) {
    uint32_t i;
    for (i = 0; i < size; i++) {
        unsigned char *page = page_of(address + i, 1);
        if (!page) return -1;
        page[(address + i) % PAGE] = from[i];
    }
    return 0;
}

static int whole(uint32_t size) { return size == 1 || size == 2 || size == 4 || size == 8; }

static int serve(const csa_msg *m) {
    unsigned char bytes[PAGE];
    uint64_t value = 0;
    uint32_t i;
    if (m->kind == CSA_READ) {
        ++*csa_count(&node, "reads");
        load(m->addr, bytes, m->size);
        if (!whole(m->size)) return csa_reply_bytes(&node, m, bytes, node.now);
        for (i = m->size; i--;) value = value << 8 | bytes[i];
        return csa_reply(&node, m, CSA_OKAY, value, node.now);
    }
    ++*csa_count(&node, "writes");
    for (i = 0; i < m->size; i++) bytes[i] = m->bytes ? m->bytes[i] : (unsigned char)(m->data >> 8 * i);
    return csa_reply(&node, m, store(m->addr, bytes, m->size) ? CSA_SLVERR : CSA_OKAY, 0, node.now);
}

int main(void) {
    static const csa_port ports[] = {{"bus", "mmio_target"}};
    const csa_msg *m;
    if (csa_open_env(&node, ports, 1, 0, 0, "c memory 1")) return csa_complain(&node);
    csa_ready(&node, CSA_NEVER, CSA_NEVER);
    while (csa_wait(&node) > 0) {
        while ((m = csa_take(&node))) serve(m);
        csa_done(&node, CSA_NEVER, CSA_NEVER, node.stop);
    }
    if (csa_error(&node)[0]) csa_complain(&node);
    return csa_close(&node);
}
