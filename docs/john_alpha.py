"""The documented example of torch-openreml, its two import lines changed; on several ranks under torchrun."""

import torch
from torch_openreml.example_data import john_alpha
from torch_openreml.utils import augment, n_distinct

from openreml_dist import REML
from openreml_dist.covariance import (
    CovariancePropagation,
    DummyMatrix,
    HadamardProduct,
    IdentityMatrix,
    ScalarMatrix,
    Sum,
)

if torch.distributed.is_torchelastic_launched():
    torch.distributed.init_process_group("gloo")

y = torch.tensor(john_alpha["yield"].values)
X = augment(torch.ones(len(john_alpha), 1), DummyMatrix(john_alpha["rep"], drop_first=True)())
Z_gen, Z_rep, Z_block = (DummyMatrix(john_alpha[c]) for c in ("gen", "rep", "block"))
G_gen = ScalarMatrix(n_distinct(john_alpha["gen"]))
G_rep = IdentityMatrix(n_distinct(john_alpha["rep"]))
G_block = ScalarMatrix(n_distinct(john_alpha["block"]))
R = ScalarMatrix(len(john_alpha))
V = Sum(
    CovariancePropagation(Z_gen, G_gen),
    HadamardProduct(CovariancePropagation(Z_rep, G_rep), CovariancePropagation(Z_block, G_block)),
    R,
)
print(V)

reml = REML(V)
theta_hat, beta_hat, n_iter = reml.optimize(y, X, torch.zeros(3), verbose=2)
print(theta_hat, V.trans_params(theta_hat))
print(V.param_names)
print(beta_hat)

if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
