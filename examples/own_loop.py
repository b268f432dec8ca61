"""The parts of CGH in a training loop of one's own: python examples/own_loop.py FOLDER [STEPS]."""

import sys

import torch
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import ContextSettings
from crosscontext.losses import relation_cross_entropy
from crosscontext.memory import Memory
from crosscontext.relations import relate
from crosscontext.teacher import Teacher

folder, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
weak = v2.Compose([v2.RandomResizedCrop(32, (0.2, 1)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
strong = v2.Compose([v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomHorizontalFlip(), weak])
images = ImageFolder(folder, transform=lambda picture: (weak(picture), strong(picture)))
batches = DataLoader(images, batch_size=32, sampler=RandomSampler(images, num_samples=32 * steps))

backbone = ResNetSettings(depth=10, width=0.25, stem="small").build()  # or any network with stage maps
student = ContextSettings().build(backbone)  # images → unit vectors, one a context: global and hyper
teacher, memory = Teacher(student, momentum=0.99), Memory(1024, widths={"global": 128, "hyper": 128})
optimizer = torch.optim.SGD(student.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4)

for step, ((weak_views, strong_views), _) in enumerate(batches, start=1):
    keys, queries, loss = teacher(weak_views), student(strong_views), torch.zeros(())
    for guide, learner in (("global", "hyper"), ("hyper", "global")):
        slots = memory.slots(learner)
        relation = relate(keys[guide], memory.slots(guide), slots, temperature=0.04)
        loss += relation_cross_entropy(relation, queries[learner], slots, 0.1, keys[learner], own_share=0.5)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    memory.push(keys)
    teacher.follow(student)
    print(f"step {step}  loss {loss.item():.3f}")
torch.save(backbone.model.state_dict(), "backbone.pt")  # the key names of timm and torchvision
