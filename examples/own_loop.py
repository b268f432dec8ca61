"""The parts of CGH in a training loop of one's own: python examples/own_loop.py FOLDER [STEPS]."""

import sys

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import ContextSettings
from crosscontext.losses import relation_cross_entropy
from crosscontext.memory import Memory
from crosscontext.relations import relate
from crosscontext.teacher import Teacher

folder, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
weak = v2.Compose([v2.RandomResizedCrop(32, (0.2, 1)), v2.RandomHorizontalFlip(), *to_tensor])
strong = v2.Compose([v2.RandomResizedCrop(32, (0.2, 1)), v2.ColorJitter(0.4, 0.4, 0.4, 0.1), *to_tensor])
images = ImageFolder(folder, transform=lambda picture: (weak(picture), strong(picture)))
batches = torch.utils.data.DataLoader(images, batch_size=32, shuffle=True, drop_last=True)

backbone = ResNetSettings(depth=10, width=0.25, stem="small").build()  # or any network with stage maps
student = ContextSettings().build(backbone, {"global", "hyper"})  # images → unit vectors by context
teacher = Teacher(student, momentum=0.99)
memory = Memory(num_slots=1024, widths={"global": 128, "hyper": 128})
optimizer = torch.optim.SGD(student.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)
pairs = (("global", "hyper", 0.04, 0.08), ("hyper", "global", 0.08, 0.10))  # teacher, student, temperatures

step = 0
while step < steps:
    for (weak_views, strong_views), _ in batches:
        keys, queries = teacher(weak_views), student(strong_views)
        loss = torch.zeros(())
        for source, target, teacher_temperature, student_temperature in pairs:
            slots = memory.slots(target)
            relation = relate(keys[source], memory.slots(source), slots, teacher_temperature)
            own = keys[target]  # the image itself as one more slot: it teaches from the first step on
            loss = loss + relation_cross_entropy(
                relation, queries[target], slots, student_temperature, own, 0.5
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        memory.push(keys)
        teacher.follow(student)
        step += 1
        print(f"step {step}  loss {loss.item():.3f}")
        if step == steps:
            break
torch.save(backbone.model.state_dict(), "backbone.pt")  # the key names of timm and torchvision
