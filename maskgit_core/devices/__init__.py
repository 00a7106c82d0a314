"""Where and how fast networks compute: number types, prepacked weights, threads, memory.

Imports `networks` and what the loop asks of them. Whatever stands here changes how soon a result
is there, never which, and stays for a line of this table. Each is the time with it over the time
without, the median of rounds in turn, of one decoding on two cores of an AMD EPYC with AVX-512
(VNNI, bfloat16) beside other programs; the model that ships, four images in 12 guided steps.

| mechanism | time | measured as |
|---|---|---|
| `prepack`, float32 | 0.49 | processor time, one thread; 0.61 for one image of adaln's tiny size |
| of it, the GELU within the product | 0.93 | |
| `prepack`, bfloat16 | 0.68 | against prepacked float32 |
| `prepack`, int8 | 0.77 | against prepacked float32 |
| `parts` | 0.69 | wall clock, two threads, the fastest round of each; the median is 0.54 |
| `first_step`, from the second decoding of a class on | 0.95 | processor time, one thread |

What did not pay, or too little, and left: the first layers of single tokens remembered (1.05), the
skip added within a product (1.01), a product of its own for q in the last block (1.00), numbers of
cells filled up to multiples of 16 (1.01), bfloat16 kept between an MLP's two products (0.97).
"""
