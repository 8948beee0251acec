/* Runs csa.h without a socket, for tests: commands on stdin, one a line; answers on stdout.
 *   frame HEX | blob HEX      ok | refused: WHY
 *   plan HEX                  ok NAME LINKS REGIONS KINDS | refused: WHY
 *   hello                     HEX of what csa_open would send
 *   take HEX                  a GRANT or BYE: 1, 0 or refused: WHY
 *   inputs | reply TAG VALUE | dma ADDRESS SIZE AT | level AT | done NEXT_EVENT | skip | wait
 *   sent                      HEX of the frame sent last
 *   error                     the error, which is then not told on stderr
 */
#define CSA_IMPLEMENTATION
#include "csa.h"

static csa c;
static csa_msg seen[8];
static int nseen;
static unsigned char bytes[1 << 20];
static char line[2 << 20];

static size_t unhex(const char *text) {
    size_t n = 0;
    unsigned int b;
    while (text[0] && text[1] && sscanf(text, "%2x", &b) == 1) {
        bytes[n++] = (unsigned char)b;
        text += 2;
    }
    return n;
}

static void said(int status, const char *why) {
    if (status) printf("refused: %s\n", why);
    else printf("ok\n");
}

static void show(const csa_msg *m) {
    ++*csa_count(&c, "accesses");
    if (m->kind == CSA_READ) printf("read %llu 0x%llx %u\n", (unsigned long long)m->tag, (unsigned long long)m->addr, m->size);
    else if (m->kind == CSA_WRITE) printf("write %llu 0x%llx %u\n", (unsigned long long)m->tag, (unsigned long long)m->addr, m->size);
    else if (m->kind == CSA_WRITE_POSTED) printf("post 0x%llx %u\n", (unsigned long long)m->addr, m->size);
    else { --*csa_count(&c, "accesses"); printf("completion %llu %u\n", (unsigned long long)m->tag, m->status); }
}

static void inputs(void) {
    const csa_msg *m;
    nseen = 0;
    while ((m = csa_take(&c))) {
        if (nseen < 8) seen[nseen++] = *m;
        show(m);
    }
    printf("end\n");
}

static void command(char *text) {
    static const csa_port ports[] = {{"regs", "mmio_target"}, {"dma", "mmio_initiator"}, {"irq", "wire"}};
    char *arg = strchr(text, ' '), why[320] = "";
    unsigned long long a = 0, b = 0, d = 0;
    size_t n;
    int i;
    if (arg) *arg++ = 0;
    else arg = text + strlen(text);
    if (!strcmp(text, "frame")) { n = unhex(arg); said(csa_check_frame(bytes, n, NULL, why), why); }
    else if (!strcmp(text, "blob")) { n = unhex(arg); said(csa_check_blob(bytes, n, why), why); }
    else if (!strcmp(text, "plan")) {
        csa__reset(&c);
        n = unhex(arg);
        if (csa_take_plan(&c, bytes, n)) printf("refused: %s\n", c.error);
        else
            printf("ok %s %d %d %d %llu %lld\n", c.name, c.nlinks, c.nregions, c.nkinds, (unsigned long long)csa_param(&c, "base", 0),
                   (long long)csa_param(&c, "negative", 0));
    } else if (!strcmp(text, "hello")) {
        csa__out o;
        csa__reset(&c);
        o = csa__frame(&c, CSA_HELLO);
        csa__put_hello(&o, "dut", "secret", ports, 3, 0, 1000, "1");
        csa__transmit(&c, &o);
    } else if (!strcmp(text, "take")) {
        n = unhex(arg);
        i = csa_take_frame(&c, bytes, n);
        if (i < 0) printf("refused: %s\n", c.error);
        else printf("%d\n", i);
    } else if (!strcmp(text, "inputs")) inputs();
    else if (!strcmp(text, "reply")) {
        sscanf(arg, "%llu %llu", &a, &b);
        for (i = 0; i < nseen; i++)
            if (seen[i].kind != CSA_WRITE_POSTED && seen[i].tag == a) csa_reply(&c, &seen[i], CSA_OKAY, b, seen[i].arrival);
    } else if (!strcmp(text, "dma")) {
        sscanf(arg, "%llu %llu %llu", &a, &b, &d);
        csa_read(&c, "dma", a, (uint32_t)b, CSA_PRIVILEGED | CSA_NONSECURE, d, NULL);
    } else if (!strcmp(text, "level")) {
        sscanf(arg, "%llu", &a);
        csa_level(&c, "irq", NULL, 0, 1, a);
    } else if (!strcmp(text, "skip")) { /* answer without taking inputs */
        csa_done(&c, CSA_NEVER, CSA_NEVER, c.stop);
    } else if (!strcmp(text, "done")) {
        sscanf(arg, "%llu", &a);
        csa_done(&c, a, a, c.stop);
    } else if (!strcmp(text, "sent")) {
        for (n = 0; n < c.frame_size; n++) printf("%02x", c.frame[n]);
        printf("\n");
    } else if (!strcmp(text, "wait")) {
        printf("%d\n", csa_wait(&c));
    } else if (!strcmp(text, "error")) {
        printf("%s\n", csa_error(&c));
        c.error[0] = 0;
    } else
        printf("unknown command\n");
    if (c.error[0] && strcmp(text, "take") && strcmp(text, "plan") && strcmp(text, "skip") && strcmp(text, "wait")) fprintf(stderr, "%s: %s\n", text, c.error);
    fflush(stdout);
}

int main(void) {
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        command(line);
    }
    return 0;
}
