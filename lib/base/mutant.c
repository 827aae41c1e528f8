#include "lib/base/mutant.h"

#include <stdlib.h>

bool mutant_chosen(const char *name)
{
    const char *chosen = getenv("QUORUMFS_MUTANT");
    if (!chosen)
        return false;
    for (; *name && *chosen; name++, chosen++) {
        if (*name != (*chosen == '-' ? '_' : *chosen))
            return false;
    }
    return *name == *chosen;
}
