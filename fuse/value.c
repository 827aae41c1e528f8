#include "fuse/value.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

struct value *value_new(struct bytes content)
{
    struct value *v = xmalloc(sizeof *v + content.n);
    v->refs = 1;
    v->n = content.n;
    if (content.n)
        memcpy(v->p, content.p, content.n);
    return v;
}

struct value *value_ref(struct value *v)
{
    if (v)
        v->refs++;
    return v;
}

void value_unref(struct value *v)
{
    if (!v)
        return;
    assert(v->refs > 0);
    if (--v->refs == 0)
        free(v);
}

void value_cache_init(struct value_cache *cache, size_t bytes_max)
{
    list_init(&cache->recent);
    cache->bytes = 0;
    cache->bytes_max = bytes_max;
}

void value_cache_drop(struct value_cache *cache, struct cached_value *slot)
{
    if (!slot->value)
        return;
    assert(cache->bytes >= slot->value->n);
    cache->bytes -= slot->value->n;
    list_remove(&slot->link);
    value_unref(slot->value);
    slot->value = NULL;
}

void value_cache_put(struct value_cache *cache, struct cached_value *slot, struct value *v)
{
    value_cache_drop(cache, slot);
    slot->value = v;
    list_append(&cache->recent, &slot->link);
    cache->bytes += v->n;
    while (cache->bytes > cache->bytes_max && cache->recent.next != &slot->link)
        value_cache_drop(cache, CONTAINER_OF(cache->recent.next, struct cached_value, link));
}

struct value *value_cache_get(struct value_cache *cache, struct cached_value *slot)
{
    if (slot->value) {
        list_remove(&slot->link);
        list_append(&cache->recent, &slot->link);
    }
    return slot->value;
}
