"""The lesson by hand: what its 33 cells do, with PyTorch and matplotlib alone.

    ONECYCLE_HOME=FOLDER python benchmarks/plain_lesson.py

Each cell starts at a line `# %%`. cells.py runs them one by one, times each, and draws to files the figures that it
leaves open. The data are read where the lesson reads them, and its three loops are as it has them.
"""

# pyright: basic, reportRedeclaration=false, reportOptionalMemberAccess=false
# the lesson defines its functions without types, and some of them twice

# %% 0 imports: torch, NumPy, matplotlib (onecycle)
import copy
import gzip
import math
import os
import pickle
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import FormatStrFormatter
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# %% 1 the data's folder
path = Path(os.environ["ONECYCLE_HOME"]) / "data" / "mnist"

# %% 2 what is in it
print(list(path.iterdir()))

# %% 3 read the pickle: gzip, pickle
with gzip.open(path / "mnist.pkl.gz", "rb") as file:
    ((x_train, y_train), (x_valid, y_valid), _) = pickle.load(file, encoding="latin-1")

# %% 4 draw a digit (imports Agg and PNG)
plt.imshow(x_train[0].reshape((28, 28)), cmap="gray")
print(x_train.shape)

# %% 5 arrays copied to tensors
x_train, y_train, x_valid, y_valid = map(torch.tensor, (x_train, y_train, x_valid, y_valid))
n, c = x_train.shape
print(x_train.shape, y_train.min(), y_train.max())

# %% 6 data sets
bs = 64
train_ds = TensorDataset(x_train, y_train)
valid_ds = TensorDataset(x_valid, y_valid)

# %% 7 loaders
train_dl = DataLoader(train_ds, bs, shuffle=True, drop_last=True)
valid_dl = DataLoader(valid_ds, bs)

# %% 8 one batch
x, y = next(iter(train_dl))
x, y = x.to(device), y.to(device)
print(x.shape, y.shape)


# %% 9 class of the logistic model
class Logistic(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(784, 10, bias=True)

    def forward(self, xb):
        return self.lin(xb)


# %% 10 the model
model = Logistic().to(device)

# %% 11 show it
print(model)

# %% 12 its layer
print(model.lin)

# %% 13 the first forward pass
print(model(x).shape)

# %% 14 shapes of its parameters
print([p.shape for p in model.parameters()])

# %% 15 learning rate
lr = 2e-2

# %% 16 loss function
loss_func = nn.CrossEntropyLoss()


# %% 17 SGD by hand
def update(x, y, lr):
    wd = 1e-5
    y_hat = model(x)
    w2 = 0.0
    for p in model.parameters():
        w2 += (p**2).sum()
    loss = loss_func(y_hat, y) + w2 * wd
    loss.backward()
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(lr * p.grad)
            p.grad.zero_()
    return loss.item()


# %% 18 loop: logistic, SGD
losses = [update(x.to(device), y.to(device), lr) for x, y in train_dl]

# %% 19 draw its losses
plt.plot(losses)


# %% 20 class of the network
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin1 = nn.Linear(784, 50, bias=True)
        self.lin2 = nn.Linear(50, 10, bias=True)

    def forward(self, xb):
        x = self.lin1(xb)
        x = F.relu(x)
        return self.lin2(x)


# %% 21 the network
model = Net().to(device)

# %% 22 loop: network, SGD
losses = [update(x.to(device), y.to(device), lr) for x, y in train_dl]

# %% 23 draw its losses
plt.plot(losses)

# %% 24 the network anew
model = Net().to(device)


# %% 25 Adam, made anew each step
def update(x, y, lr):
    opt = optim.Adam(model.parameters(), lr)
    y_hat = model(x)
    loss = loss_func(y_hat, y)
    loss.backward()
    opt.step()
    opt.zero_grad()
    return loss.item()


# %% 26 loop: network, Adam
losses = [update(x.to(device), y.to(device), 1e-3) for x, y in train_dl]

# %% 27 draw its losses
plt.plot(losses)

# %% 28 the learner
model = Net().to(device)
opt = optim.AdamW(model.parameters(), 1e-2, betas=(0.9, 0.99), weight_decay=1e-2)


# %% 29 range test of up to 100 steps, drawn
def smoothed(values, beta=0.98):
    average, found = 0.0, []
    for i, value in enumerate(values, start=1):
        average = beta * average + (1 - beta) * value
        found.append(average / (1 - beta**i))
    return found


def range_test(model, start=1e-7, end=10.0, steps=100):
    model = copy.deepcopy(model)
    opt = optim.AdamW(model.parameters(), start, betas=(0.9, 0.99), weight_decay=1e-2)
    lrs, losses, average, best = [], [], 0.0, math.inf
    for i, (xb, yb) in zip(range(steps), train_dl):  # noqa: B905 -- the epoch is longer
        lrs.append(start * (end / start) ** (i / steps))
        opt.param_groups[0]["lr"] = lrs[-1]
        loss = loss_func(model(xb.to(device)), yb.to(device))
        loss.backward()
        opt.step()
        opt.zero_grad()
        average = 0.98 * average + 0.02 * loss.item()
        losses.append(average / (1 - 0.98 ** (i + 1)))
        best = min(best, losses[-1])
        if losses[-1] > 4 * best or math.isnan(losses[-1]):
            break
    return lrs, losses


lrs, losses = range_test(model)
figure, ax = plt.subplots()
ax.plot(lrs[10:-5], losses[10:-5])
ax.set_xscale("log")
ax.xaxis.set_major_formatter(FormatStrFormatter("%.0e"))
ax.set_xlabel("Learning Rate")
ax.set_ylabel("Loss")

# %% 30 one cycle, one epoch, validation
started = time.perf_counter()
schedule = optim.lr_scheduler.OneCycleLR(opt, 1e-2, total_steps=len(train_dl))
lrs, moms, losses = [], [], []
model.train()
for xb, yb in train_dl:
    lrs.append(opt.param_groups[0]["lr"])
    moms.append(opt.param_groups[0]["betas"][0])
    loss = loss_func(model(xb.to(device)), yb.to(device))
    loss.backward()
    opt.step()
    schedule.step()
    opt.zero_grad()
    losses.append(loss.item())
losses = smoothed(losses)
model.eval()
valid_loss, right = 0.0, 0
with torch.no_grad():
    for xb, yb in valid_dl:
        out, yb = model(xb.to(device)), yb.to(device)
        valid_loss += loss_func(out, yb).item() * len(yb)
        right += int((out.argmax(1) == yb).sum())
valid_loss, accuracy = valid_loss / len(valid_ds), right / len(valid_ds)
seconds = time.perf_counter() - started
print(f"0  {losses[-1]:.6f}  {valid_loss:.6f}  {accuracy:.6f}  {seconds:.1f} s")

# %% 31 draw learning rate and momentum
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4))
left.plot(lrs)
left.set_xlabel("Iterations")
left.set_ylabel("Learning Rate")
right.plot(moms)
right.set_xlabel("Iterations")
right.set_ylabel("Momentum")

# %% 32 draw the losses
figure, ax = plt.subplots()
ax.plot(losses, label="Train")
ax.plot([len(losses)], [valid_loss], label="Validation", marker="o", markersize=4)
ax.set_xlabel("Batches processed")
ax.set_ylabel("Loss")
ax.legend()
