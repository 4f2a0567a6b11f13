/* SPDX-License-Identifier: MIT */
/* What the programs print as JSON, as far as they have it in common. */
#ifndef SAMPLES_JSON_H
#define SAMPLES_JSON_H

#include <hakmem/hakmem.h>

/* A string, quoted. File names are bytes: what JSON needs escaped is, the rest goes as it is. */
void json_string(const char *text);

/* The counters by the names they have in struct hk_counters, on lines that begin with @indent. */
void json_counters(const struct hk_counters *from, const char *indent);

#endif /* SAMPLES_JSON_H */
