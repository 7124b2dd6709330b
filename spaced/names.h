/* The one strict rule for names, and how a Space's host name is made from them. Pure.
 * Source: Hugging Face's client-side rule (huggingface_hub utils/_validators.py), narrowed to what is safe in a host. */
#ifndef SPACED_NAMES_H
#define SPACED_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define NAME_USER_MAX 42
#define NAME_SPACE_MAX 96
#define NAME_LABEL_MAX 63 /* RFC 1035 2.3.4 */

/* [A-Za-z0-9] with single inner '-', 2..42 bytes, not all digits, not reserved (api, spaces, settings, ...). The reason
 * goes to err. */
int name_check_user(const char *s, struct err *err);
/* 1..96 of [A-Za-z0-9._-], no leading or trailing '-' or '.', no "--" or "..", not ending in ".git" or ".lock". */
int name_check_space(const char *s, struct err *err);
/* "Alice", "My_App.v2" -> "alice-my-app-v2". Longer than 63 bytes, or `salted`: cut, and "-" plus 8 hex digits of a hash
 * of the exact names appended. */
void name_host_label(const char *owner, const char *name, bool salted, char out[NAME_LABEL_MAX + 1]);
/* Splits "/spaces/{owner}/{name}[.git][/rest]"; rest is "" or starts with '/'. Percent-encoding is refused: no valid
 * name needs it. */
bool name_split_repo_path(const char *path, size_t len, char owner[NAME_USER_MAX + 1], char space[NAME_SPACE_MAX + 1],
			  const char **rest, size_t *rest_len);

#endif
