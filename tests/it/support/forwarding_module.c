/* A PKCS#11 module that hands every call on to another one (`FORWARD_TO`, fixed when
 * this is compiled), and lets calls fail on demand.
 *
 * What is to fail stands in the file that FORWARDING_CONTROL names, or where that is
 * not set, in the one fixed as CONTROL; one line each:
 *
 *   C_Sign=0x30        returns that value and does nothing
 *   C_Sign=once:0x30   the same, for one call of any function; the file is emptied first
 *   C_Sign=after:0x30  does it, and returns that value all the same
 *   C_Sign=once-after:0x30
 *                      the same, for one call, and not where only the length is asked
 *   C_Sign=once-logout logs its session out before one call
 *   C_Sign=hang        does not return while the line stands there
 *   hide=0x1087        the token's list lacks this mechanism
 *   flip=0x162         this attribute, true or false, is told the other way round
 *
 * Every call whose name stands in a line `count=C_Login` is written down in the file
 * with `.calls` at its end. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);

/* CK_FUNCTION_LIST: a version, and 68 functions in the order of the standard. */
enum { FUNCTIONS = 68 };
struct list {
    unsigned char version[2];
    function functions[FUNCTIONS];
};

static struct list *real;
static struct list ours;

static const char *control_file(void) {
    const char *file = getenv("FORWARDING_CONTROL");
#ifdef CONTROL
    if (!file) file = CONTROL;
#endif
    return file;
}

/* What is said about `name`, up to the end of its line. */
static int said(const char *name, char *value, size_t size) {
    const char *file = control_file();
    if (!file) return 0;
    FILE *control = fopen(file, "r");
    if (!control) return 0;
    char line[256];
    size_t length = strlen(name);
    int found = 0;
    while (!found && fgets(line, sizeof line, control)) {
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\r\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    fclose(control);
    return found;
}

static void count(const char *name) {
    const char *file = control_file();
    if (!file) return;
    FILE *control = fopen(file, "r");
    if (!control) return;
    char line[256], wanted[256];
    snprintf(wanted, sizeof wanted, "count=%s", name);
    while (fgets(line, sizeof line, control)) {
        line[strcspn(line, "\r\n")] = 0;
        if (strcmp(line, wanted) != 0) continue;
        char log[512];
        snprintf(log, sizeof log, "%s.calls", file);
        FILE *calls = fopen(log, "a");
        if (!calls) continue;
        fprintf(calls, "%s\n", name);
        fclose(calls);
    }
    fclose(control);
}

static word forward(int place, const char *name, word a, word b, word c, word d, word e, word f,
                    word g, word h) {
    char value[256];
    count(name);
    while (said(name, value, sizeof value) && strcmp(value, "hang") == 0) usleep(5000);
    if (!said(name, value, sizeof value))
        return real->functions[place](a, b, c, d, e, f, g, h);
    if (strncmp(value, "after:", 6) == 0) {
        word done = real->functions[place](a, b, c, d, e, f, g, h);
        return done ? done : strtoul(value + 6, NULL, 0);
    }
    if (strncmp(value, "once-after:", 11) == 0 && place >= 29 && place <= 43 && d == 0)
        return real->functions[place](a, b, c, d, e, f, g, h);
    if (strncmp(value, "once", 4) == 0) {
        /* Whoever empties the file is the one whose call fails. */
        char taken[512];
        snprintf(taken, sizeof taken, "%s.taken.%lx", control_file(), (word)value);
        if (rename(control_file(), taken) != 0)
            return real->functions[place](a, b, c, d, e, f, g, h);
        unlink(taken);
        if (strcmp(value, "once-logout") == 0) {
            real->functions[19](a, 0, 0, 0, 0, 0, 0, 0); /* C_Logout */
            return real->functions[place](a, b, c, d, e, f, g, h);
        }
        if (strncmp(value, "once-after:", 11) == 0) {
            word done = real->functions[place](a, b, c, d, e, f, g, h);
            return done ? done : strtoul(value + 11, NULL, 0);
        }
        return strtoul(value + 5, NULL, 0);
    }
    return strtoul(value, NULL, 0);
}

/* Places are those of the standard's list, from 0. All arguments are words. */
#define FORWARDED(place, name)                                                              \
    static word name(word a, word b, word c, word d, word e, word f, word g, word h) {      \
        return forward(place, #name, a, b, c, d, e, f, g, h);                               \
    }
FORWARDED(0, C_Initialize)
FORWARDED(1, C_Finalize)
FORWARDED(4, C_GetSlotList)
FORWARDED(6, C_GetTokenInfo)
FORWARDED(12, C_OpenSession)
FORWARDED(18, C_Login)
FORWARDED(22, C_DestroyObject)
FORWARDED(26, C_FindObjectsInit)
FORWARDED(29, C_EncryptInit)
FORWARDED(30, C_Encrypt)
FORWARDED(33, C_DecryptInit)
FORWARDED(34, C_Decrypt)
FORWARDED(42, C_SignInit)
FORWARDED(43, C_Sign)
FORWARDED(58, C_GenerateKey)
FORWARDED(59, C_GenerateKeyPair)

static word C_GetMechanismList(word slot, word *mechanisms, word *number, word d, word e, word f,
                               word g, word h) {
    word done = forward(7, "C_GetMechanismList", slot, (word)mechanisms, (word)number, d, e, f, g, h);
    const char *file = control_file();
    FILE *control = file ? fopen(file, "r") : NULL;
    if (!control) return done;
    char line[256];
    while (done == 0 && mechanisms && fgets(line, sizeof line, control)) {
        if (strncmp(line, "hide=", 5) != 0) continue;
        word hidden = strtoul(line + 5, NULL, 0), kept = 0;
        for (word i = 0; i < *number; i++)
            if (mechanisms[i] != hidden) mechanisms[kept++] = mechanisms[i];
        *number = kept;
    }
    fclose(control);
    return done;
}

/* CK_ATTRIBUTE. */
struct attribute {
    word type;
    unsigned char *value;
    word length;
};

static word C_GetAttributeValue(word session, word object, word template, word number, word e,
                                word f, word g, word h) {
    word done =
        forward(24, "C_GetAttributeValue", session, object, template, number, e, f, g, h);
    char value[256];
    if (done || !said("flip", value, sizeof value)) return done;
    struct attribute *told = (struct attribute *)template;
    for (word i = 0; i < number; i++)
        if (told[i].type == strtoul(value, NULL, 0) && told[i].value && told[i].length == 1)
            *told[i].value ^= 1;
    return done;
}

__attribute__((visibility("default"))) word C_GetFunctionList(struct list **list) {
    static const struct {
        int place;
        function function;
    } forwarded[] = {
        {0, C_Initialize},       {1, C_Finalize},      {4, C_GetSlotList},  {6, C_GetTokenInfo},
        {7, (function)(void *)C_GetMechanismList},     {12, C_OpenSession}, {18, C_Login},
        {22, C_DestroyObject},   {24, C_GetAttributeValue},                 {26, C_FindObjectsInit},
        {29, C_EncryptInit},     {30, C_Encrypt},      {33, C_DecryptInit}, {34, C_Decrypt},
        {42, C_SignInit},        {43, C_Sign},         {58, C_GenerateKey}, {59, C_GenerateKeyPair},
    };
#ifdef SOFTHSM2_CONF
    /* Inside the tests' own process, whose environment stays as it is. */
    setenv("SOFTHSM2_CONF", SOFTHSM2_CONF, 1);
#endif
    void *module = dlopen(FORWARD_TO, RTLD_NOW | RTLD_LOCAL);
    if (!module) return 0x05; /* CKR_GENERAL_ERROR */
    word (*get)(struct list **) = (word(*)(struct list **))dlsym(module, "C_GetFunctionList");
    if (!get) return 0x05;
    word done = get(&real);
    if (done) return done;
    ours = *real;
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++)
        ours.functions[forwarded[i].place] = forwarded[i].function;
    *list = &ours;
    return 0;
}
