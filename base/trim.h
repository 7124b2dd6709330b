/* Gives back what only the start of a process needed. */
#ifndef BASE_TRIM_H
#define BASE_TRIM_H

/* Unmaps the read-only pages of the program and its libraries from this process (they come back from the page cache when
 * they are needed again) and returns free heap. All roles are one program, so each has touched pages of libraries that
 * only another one uses, while the dynamic linker relocated them: two thirds of what would be resident. */
void trim_resident(void);

#endif
