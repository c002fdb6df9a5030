"""Networks of torch's own layers, as source text: from inputs of a family to a hidden tensor of shape (rows, width)."""

from dataclasses import dataclass, field
from random import Random

ACTIVATIONS = [
    *(
        "nn.ReLU()",
        "nn.ReLU(inplace=True)",
        "nn.GELU()",
        'nn.GELU(approximate="tanh")',
        "nn.SiLU()",
        "nn.Mish()",
        "nn.ELU()",
    ),
    *("nn.SELU()", "nn.CELU(0.5)", "nn.LeakyReLU(0.1)", "nn.PReLU()", "nn.Tanh()", "nn.Sigmoid()", "nn.Hardtanh()"),
    *(
        "nn.Hardswish()",
        "nn.Hardsigmoid()",
        "nn.Softplus(2.0)",
        "nn.Softsign()",
        "nn.Tanhshrink()",
        "nn.Hardshrink(0.1)",
    ),
    *("nn.Softshrink(0.1)", "nn.Threshold(0.1, 0.0)", "nn.LogSigmoid()", "nn.ReLU6()", "nn.RReLU()", "nn.Identity()"),
]
VECTOR = [
    *("nn.LayerNorm({d})", "nn.LayerNorm({d}, elementwise_affine=False)", "nn.LayerNorm({d}, bias=False)"),
    *(
        "nn.RMSNorm({d})",
        "nn.BatchNorm1d({d})",
        "nn.BatchNorm1d({d}, affine=False)",
        "nn.BatchNorm1d({d}, momentum=0.3)",
    ),
    *(
        "nn.BatchNorm1d({d}, track_running_stats=False)",
        "nn.GroupNorm(1, {d})",
        "nn.Dropout(0.3)",
        "nn.Dropout(0.2, inplace=True)",
    ),
    *("nn.AlphaDropout(0.1)", "nn.Softmax(dim=1)", "nn.LogSoftmax(dim=1)", "nn.Softmin(dim=1)"),
]
RECURRENT = [
    *("nn.LSTM({d}, 4, batch_first=True)", "nn.GRU({d}, 4, batch_first=True)", "nn.RNN({d}, 4, batch_first=True)"),
    *(
        "nn.LSTM({d}, 3, num_layers=2, batch_first=True)",
        "nn.GRU({d}, 3, num_layers=2, batch_first=True, bidirectional=True)",
    ),
    *(
        "nn.LSTM({d}, 3, num_layers=2, dropout=0.3, batch_first=True)",
        "nn.RNN({d}, 3, nonlinearity='relu', batch_first=True)",
    ),
    *("nn.LSTM({d}, 4, batch_first=True, bidirectional=True)", "nn.LSTM({d}, 4, proj_size=2, batch_first=True)"),
    *("nn.GRU({d}, 4, bias=False, batch_first=True)", "nn.GRU({d}, 3, num_layers=2, dropout=0.2, batch_first=True)"),
]
WIDTH_OF_RECURRENT = [4, 4, 4, 3, 6, 3, 3, 8, 2, 4, 3]


@dataclass
class Network:
    """Lines of `__init__` and of `forward` from `x` to `h`; `layers` if it is one after the other, as nn.Sequential."""

    family: str
    width: int = 6
    init: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    layers: list[str] | None = None
    arguments: str = "x"


def network(random: Random, family: str) -> Network:
    """A random network of a family."""
    made = {
        "table": _table,
        "signal": _signal,
        "image": _image,
        "volume": _volume,
        "sequence": _sequence,
        "tokens": _tokens,
        "two": _two_inputs,
    }[family](random)
    made.family = family
    if made.layers is not None:
        _write(random, made)
    return made


def _write(random: Random, made: Network) -> None:
    """Write layers that follow each other in one of the ways that people do."""
    layers, how = made.layers or [], random.choice(["sequential", "attributes", "list", "dict", "nested", "loop"])
    if how == "sequential":
        made.init.append(f"self.net = nn.Sequential({', '.join(layers)})")
        made.forward.append("h = self.net(x)")
    elif how == "attributes":
        made.init += [f"self.layer{i} = {layer}" for i, layer in enumerate(layers)]
        made.forward += ["h = x", *(f"h = self.layer{i}(h)" for i in range(len(layers)))]
    elif how == "list":
        made.init.append(f"self.net = nn.ModuleList([{', '.join(layers)}])")
        made.forward += ["h = x", "for layer in self.net:", "    h = layer(h)"]
    elif how == "dict":
        items = ", ".join(f'"layer{i}": {layer}' for i, layer in enumerate(layers))
        made.init.append(f"self.net = nn.ModuleDict({{{items}}})")
        made.forward += ["h = x", "for name in self.net:", "    h = self.net[name](h)"]
    elif how == "nested":
        cut = random.randrange(len(layers) + 1)
        parts = [f"nn.Sequential({', '.join(some)})" for some in (layers[:cut], layers[cut:]) if some]
        made.init.append(f"self.net = nn.Sequential({', '.join(parts)})")
        made.forward.append("h = self.net(x)")
    else:
        made.init += [
            "for i, layer in enumerate([" + ", ".join(layers) + "]):",
            "    self.add_module(f'step{i}', layer)",
        ]
        made.forward += [
            "h = x",
            "for layer in self.children():",
            "    h = layer(h) if layer is not getattr(self, 'head', None) else h",
        ]
        made.forward[-1] = "    h = layer(h)"
        made.forward[-2] = f"for layer in [getattr(self, f'step{{i}}') for i in range({len(layers)})]:"


def _vector_layers(random: Random, d: int, count: int) -> list[str]:
    layers: list[str] = []
    for _ in range(count):
        kind = random.random()
        if kind < 0.4:
            layers.append(random.choice(ACTIVATIONS))
        else:
            layers.append(random.choice(VECTOR).format(d=d))
    return layers


def _to_width(random: Random, d: int, width: int) -> str:
    return f"nn.Linear({d}, {width}{', bias=False' if random.random() < 0.2 else ''})"


def _table(random: Random) -> Network:
    made = Network("table")
    layers, d = [], 8
    for _ in range(random.randint(0, 2)):
        wider = random.choice([5, 8, 10])
        layers += [_to_width(random, d, wider), *_vector_layers(random, wider, random.randint(1, 2))]
        d = wider
        if random.random() < 0.1 and d % 2 == 0:
            layers.append("nn.GLU(dim=1)")
            d //= 2
    made.layers = [*layers, _to_width(random, d, made.width), *_vector_layers(random, made.width, random.randint(0, 2))]
    return made


EXTRAS_OF_SIGNALS = [
    "",
    ", stride=2",
    ", groups=2",
    ", padding_mode='circular'",
    ", padding_mode='reflect'",
    ", bias=False",
    ", dilation=1",
]
EXTRAS_OF_IMAGES = [
    "",
    ", stride=2",
    ", groups=2",
    ", padding_mode='circular'",
    ", padding_mode='replicate'",
    ", bias=False",
]


def _conv(random: Random, dims: int, channels: int, size: int, extras: list[str]) -> tuple[str, int, int]:
    """A convolution of some number of dimensions, with the channels and the size of its output."""
    wider, extra = random.choice([2, 4]), random.choice(extras)
    layer = f"nn.Conv{dims}d({channels}, {wider}, 3, padding=1{extra})"
    return layer, wider, (size + 1) // 2 if "stride" in extra else size


def _signal(random: Random) -> Network:
    made = Network("signal")
    c, length = 2, 10
    layers: list[str] = []
    for _ in range(random.randint(1, 3)):
        kind = random.randrange(14)
        if kind <= 3:
            layer, c, length = _conv(random, 1, c, length, EXTRAS_OF_SIGNALS)
            layers.append(layer)
        elif kind == 4:
            layers.append(f"nn.ConvTranspose1d({c}, 2, 3, padding=1)")
            c = 2
        elif kind == 5 and length >= 4:
            layers.append(random.choice(["nn.MaxPool1d(2)", "nn.AvgPool1d(2)", "nn.LPPool1d(2, 2)"]))
            length //= 2
        elif kind == 6:
            layers.append(
                random.choice(
                    [
                        f"nn.BatchNorm1d({c})",
                        f"nn.InstanceNorm1d({c})",
                        f"nn.InstanceNorm1d({c}, affine=True, track_running_stats=True)",
                    ]
                )
            )
        elif kind == 7:
            layers.append(
                random.choice(
                    [f"nn.GroupNorm(2, {c})", f"nn.LayerNorm([{c}, {length}])", f"nn.GroupNorm({c}, {c}, affine=False)"]
                )
            )
        elif kind == 8:
            layers.append(random.choice(["nn.Dropout1d(0.2)", "nn.Dropout(0.2)", "nn.FeatureAlphaDropout(0.2)"]))
        elif kind == 9:
            layers.append(
                random.choice(
                    [
                        "nn.ConstantPad1d(1, 0.5)",
                        "nn.ReflectionPad1d(1)",
                        "nn.ReplicationPad1d(1)",
                        "nn.ZeroPad1d(1)",
                        "nn.CircularPad1d(1)",
                    ]
                )
            )
            length += 2
        elif kind == 10 and length < 12:
            layers.append(random.choice(["nn.Upsample(scale_factor=2)", "nn.Upsample(scale_factor=2, mode='linear')"]))
            length *= 2
        else:
            layers.append(random.choice([*ACTIVATIONS, f"nn.PReLU({c})"]))
    if random.random() < 0.3:
        layers.append(random.choice(["nn.AdaptiveAvgPool1d(2)", "nn.AdaptiveMaxPool1d(2)"]))
        length = 2
    flatten = "nn.Flatten()"
    made.layers = [
        *layers,
        flatten,
        _to_width(random, c * length, made.width),
        *_vector_layers(random, made.width, random.randint(0, 1)),
    ]
    return made


def _image(random: Random) -> Network:
    made = Network("image")
    c, side = 2, 6
    layers: list[str] = []
    for _ in range(random.randint(1, 3)):
        kind = random.randrange(16)
        if kind <= 3:
            layer, c, side = _conv(random, 2, c, side, EXTRAS_OF_IMAGES)
            layers.append(layer)
        elif kind == 4:
            layers.append(f"nn.ConvTranspose2d({c}, 2, 3, padding=1)")
            c = 2
        elif kind == 5 and side >= 4:
            layers.append(
                random.choice(
                    [
                        "nn.MaxPool2d(2)",
                        "nn.AvgPool2d(2)",
                        "nn.LPPool2d(2, 2)",
                        "nn.FractionalMaxPool2d(2, output_ratio=0.5)",
                    ]
                )
            )
            side //= 2
        elif kind == 6:
            layers.append(
                random.choice(
                    [f"nn.BatchNorm2d({c})", f"nn.InstanceNorm2d({c})", f"nn.BatchNorm2d({c}, momentum=0.01)"]
                )
            )
        elif kind == 7:
            layers.append(
                random.choice(
                    [f"nn.GroupNorm(2, {c})", f"nn.LayerNorm([{c}, {side}, {side}])", "nn.LocalResponseNorm(2)"]
                )
            )
        elif kind == 8:
            layers.append(random.choice(["nn.Dropout2d(0.2)", "nn.Dropout(0.2)", "nn.FeatureAlphaDropout(0.2)"]))
        elif kind == 9:
            layers.append(
                random.choice(
                    ["nn.ConstantPad2d(1, 0.5)", "nn.ReflectionPad2d(1)", "nn.ReplicationPad2d(1)", "nn.ZeroPad2d(1)"]
                )
            )
            side += 2
        elif kind == 10 and side < 7:
            layers.append(
                random.choice(
                    [
                        "nn.Upsample(scale_factor=2)",
                        "nn.Upsample(scale_factor=2, mode='bilinear')",
                        "nn.UpsamplingNearest2d(scale_factor=2)",
                    ]
                )
            )
            side *= 2
        elif kind == 11 and side % 2 == 0:
            layers.append("nn.PixelUnshuffle(2)")
            c, side = c * 4, side // 2
        elif kind == 12 and c % 4 == 0:
            layers.append("nn.PixelShuffle(2)")
            c, side = c // 4, side * 2
            c = max(c, 1)
            layers.append(f"nn.Conv2d({c}, 2, 1)")
            c = 2
        elif kind == 13:
            layers.append(random.choice(["nn.Softmax2d()", "nn.ChannelShuffle(2)"]))
        else:
            layers.append(random.choice([*ACTIVATIONS, f"nn.PReLU({c})"]))
    if random.random() < 0.4:
        layers.append(random.choice(["nn.AdaptiveAvgPool2d(2)", "nn.AdaptiveMaxPool2d(2)"]))
        side = 2
    made.layers = [
        *layers,
        "nn.Flatten()",
        _to_width(random, c * side * side, made.width),
        *_vector_layers(random, made.width, random.randint(0, 1)),
    ]
    return made


def _volume(random: Random) -> Network:
    made = Network("volume")
    layers = [random.choice(["nn.Conv3d(1, 2, 3, padding=1)", "nn.ConvTranspose3d(1, 2, 3, padding=1)"])]
    layers += random.sample(
        ["nn.BatchNorm3d(2)", "nn.ReLU()", "nn.Dropout3d(0.2)", "nn.InstanceNorm3d(2)", "nn.GELU()"], 2
    )
    layers += [random.choice(["nn.MaxPool3d(2)", "nn.AvgPool3d(2)", "nn.AdaptiveAvgPool3d(2)"])]
    made.layers = [*layers, "nn.Flatten()", _to_width(random, 16, made.width)]
    return made


def _sequence_body(random: Random, made: Network, d: int) -> None:
    """Lines from `h` of shape (rows, 5, d) to `h` of shape (rows, width)."""
    kind = random.choice(
        ["recurrent", "recurrent", "recurrent", "attention", "encoder", "conv", "linear", "cell", "decoder"]
    )
    if kind == "recurrent":
        pick = random.randrange(len(RECURRENT))
        text, width = RECURRENT[pick].format(d=d), WIDTH_OF_RECURRENT[pick]
        batch_first = random.random() < 0.7
        how = random.choice(["last", "mean", "flatten", "h_n"])
        made.init.append(f"self.rnn = {text if batch_first else text.replace(', batch_first=True', '')}")
        if not batch_first:
            made.forward.append("h = h.transpose(0, 1)")
        if how == "h_n":
            made.forward.append("_, state = self.rnn(h)")
            made.forward.append("state = state[0] if isinstance(state, tuple) else state")
            made.forward.append("h = state[-1]")
            width = width // 2 if "bidirectional" in text else width
        else:
            made.forward.append("h, _ = self.rnn(h)")
            if not batch_first:
                made.forward.append("h = h.transpose(0, 1)")
            made.forward.append({"last": "h = h[:, -1]", "mean": "h = h.mean(1)", "flatten": "h = h.flatten(1)"}[how])
            width = width * 5 if how == "flatten" else width
    elif kind == "attention":
        made.init += [
            f"self.attention = nn.MultiheadAttention({d}, 2, dropout={random.choice([0.0, 0.1])}, batch_first=True)",
            f"self.norm = nn.LayerNorm({d})",
        ]
        weights = random.choice(["", ", need_weights=False"])
        made.forward += [f"a, _ = self.attention(h, h, h{weights})", "h = self.norm(h + a).mean(1)"]
        width = d
    elif kind == "encoder":
        options = random.choice(["", ", norm_first=True", ", activation='gelu'", ", dropout=0.0"])
        made.init.append(f"self.encoder = nn.TransformerEncoderLayer({d}, 2, 8, batch_first=True{options})")
        if random.random() < 0.4:
            made.init[-1] = (
                f"self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer({d}, 2, 8, batch_first=True{options}), 2, enable_nested_tensor=False)"
            )
        made.forward.append("h = self.encoder(h).mean(1)")
        width = d
    elif kind == "decoder":
        made.init.append(f"self.decoder = nn.TransformerDecoderLayer({d}, 2, 8, batch_first=True)")
        made.forward.append("h = self.decoder(h, h).mean(1)")
        width = d
    elif kind == "conv":
        made.init.append(f"self.conv = nn.Conv1d({d}, 4, 3)")
        made.forward += ["h = torch.relu(self.conv(h.transpose(1, 2))).amax(2)"]
        width = 4
    elif kind == "cell":
        cell = random.choice(["LSTMCell", "GRUCell", "RNNCell"])
        made.init.append(f"self.cell = nn.{cell}({d}, 4)")
        made.forward += ["state = None", "for step in h.unbind(1):", "    state = self.cell(step, state)"]
        made.forward.append("h = state[0]" if cell == "LSTMCell" else "h = state")
        width = 4
    else:
        made.init += [f"self.mix = nn.Linear({d}, 4)", "self.norm = nn.LayerNorm(4)"]
        made.forward.append("h = self.norm(torch.tanh(self.mix(h))).flatten(1)")
        width = 20
    made.init.append(f"self.to_width = {_to_width(random, width, made.width)}")
    made.forward.append("h = self.to_width(h)")


def _sequence(random: Random) -> Network:
    made = Network("sequence", forward=["h = x"])
    _sequence_body(random, made, 4)
    return made


def _tokens(random: Random) -> Network:
    made = Network("tokens")
    kind = random.random()
    if kind < 0.25:
        mode = random.choice(["mean", "sum", "max"])
        made.init.append(f'self.bag = nn.EmbeddingBag(12, 6, mode="{mode}")')
        made.forward.append("h = self.bag(x)")
        return made
    options = random.choice(["", ", padding_idx=0", ", scale_grad_by_freq=True"])
    made.init.append(f"self.embedding = nn.Embedding(12, 4{options})")
    made.forward.append("h = self.embedding(x)")
    if random.random() < 0.3:
        made.init.append("self.positions = nn.Embedding(5, 4)")
        made.forward.append("h = h + self.positions(torch.arange(x.shape[1]))")
    _sequence_body(random, made, 4)
    return made


def _two_inputs(random: Random) -> Network:
    made = Network("two", arguments="x, ids")
    made.init.append("self.embedding = nn.Embedding(12, 3)")
    made.init.append("self.join = nn.Linear(11, 6)")
    made.forward.append("h = torch.relu(self.join(torch.cat([x, self.embedding(ids)], 1)))")
    return made
